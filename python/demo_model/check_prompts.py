#!/usr/bin/env python3
"""Prompts of the demo model's cases, as mistral-common renders them.

    check_prompts.py make FILE              with mistral_common 1.13.1: number of ids and their SHA-256 for cases of each task
    check_prompts.py check FILE BISE DIR    the same prompts by `bise probe encode`; the tokenizer is written to DIR/tekken.json
                                            (needs only Python's standard library)

A pinned digest also says that the generator still makes the same cases: after a wanted change of it, make the file again.
"""
import hashlib
import json
import os
import sys

import cases
import tasks_recall
import vocabulary

SEED, COUNT = 3000017, 12
TASKS = [t for t in cases.registry() if t not in ("recall_long", "recall_2k", *tasks_recall.SLOW)] + ["recall_2k"]
WHOLE_TEKKEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden/chat/tekken.json.gz")


def digest(ids):
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def all_cases():
    tasks = cases.registry()
    for task in TASKS:
        for i in range(COUNT):
            yield task, i, cases.make(task, SEED, i, tasks)


def make(file):
    from render import Renderer
    vocabulary.write("/tmp/demo_tekken.json")
    renderer, rows = Renderer("/tmp/demo_tekken.json"), []
    for task, i, case in all_cases():
        ids, images = renderer.prompt(case)
        rows.append({"task": task, "index": i, "n_ids": len(ids), "sha256": digest(ids),
                     "image_grid": [[image.shape[2] // 28, image.shape[1] // 28] for image in images]})
    with open(file, "w", encoding="utf-8") as f:
        f.write(json.dumps({"made_with": "mistral_common 1.13.1", "seed": SEED, "cases": rows}).replace('{"task"', '\n{"task"') + "\n")


def check(file, bise, folder):
    from evaluate import probe
    with open(file, encoding="utf-8") as f:
        rows = json.load(f)["cases"]
    os.makedirs(folder, exist_ok=True)
    vocabulary.write(f"{folder}/tekken.json", WHOLE_TEKKEN)
    made = list(all_cases())
    answers = probe(bise, "encode", f"{folder}/tekken.json", [{"request": {"model": "demo", **c.request}, "strict": True} for _, _, c in made])
    wrong = [f"{row['task']} {row['index']}: {str(a)[:200]}" for row, a in zip(rows, answers, strict=True)
             if "ids" not in a or [len(a["ids"]), digest(a["ids"]), a.get("image_grid", [])] != [row["n_ids"], row["sha256"], row["image_grid"]]]
    print("\n".join(wrong[:10] + [f"{len(rows) - len(wrong)} of {len(rows)} prompts are those of mistral-common"]))
    return 1 if wrong or len(rows) != len(TASKS) * COUNT else 0


if __name__ == "__main__":
    sys.exit(make(sys.argv[2]) if sys.argv[1] == "make" else check(*sys.argv[2:5]))
