#!/usr/bin/env python3
"""Held-out cases through the built program, greedily: encode, generate, parse, judge.

    evaluate.py BISE MODEL [--cases N] [--tasks a,b] [--seed S] [--wrong N] [-- options of bise]

Asks all tasks but those of very long documents (recall_far, recall_8k, recall_16k), which --tasks can name. Prints one line per task: right
answers of how many, with a 95 % interval. --answers FILE keeps every answer's token ids as JSON
lines; --compare FILE tells how many of them are the same as in such a file (of answers_torch.py, or of another form of the
weights). --record FILE keeps which cases went wrong; --at-least FILE asks the first --cases of them again and fails where
fewer answers are right (one of a task may turn, because kernels of other processors round otherwise). Needs only Python's standard
library.
"""
import argparse
import base64
import json
import math
import os
import subprocess
import sys
import tempfile

import cases
import judge
import tasks_recall

HELD_OUT_SEED = 2000003   # neither the seed of training nor that of its progress table


def probe(bise, what, model, questions, options=()):
    """One answer for each question."""
    done = subprocess.run([bise, "probe", what, model, *options], input="".join(json.dumps(q) + "\n" for q in questions),
                          capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != len(questions):
        sys.exit(f"probe {what}: exit {done.returncode}, {len(answers)} answers of {len(questions)}: {done.stderr.strip()[-500:]}")
    return answers


def picture_files(request, folder, number):
    """The data URLs of a request as files, in order."""
    out = []
    for message in request["messages"]:
        for chunk in message["content"] if isinstance(message["content"], list) else []:
            if chunk["type"] == "image_url":
                out.append(os.path.join(folder, f"{number}-{len(out)}.png"))
                with open(out[-1], "wb") as f:
                    f.write(base64.b64decode(chunk["image_url"]["url"].split(",", 1)[1]))
    return out


def ask(bise, model, made, options, most_tokens):
    """(answer ids, parsed answer) of each case."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = probe(bise, "encode", model, [{"request": c.request} for c in made])
        questions = [{"ids": p["ids"], "images": picture_files(c.request, folder, n), "max_tokens": most_tokens, "temperature": 0}
                     for n, (c, p) in enumerate(zip(made, prompts))]
        given = probe(bise, "generate", model, questions, options)
        for g in given:
            if "error" in g:
                sys.exit(f"generate: {g['error']}")
        answers = probe(bise, "parse", model, [{"ids": g["ids"], "finish": g["finish_reason"]} for g in given])
    return [g["ids"] for g in given], answers


def interval(good, count):
    """Wilson's 95 % interval, in percent."""
    z, p = 1.96, good / count
    centre, half = (p + z * z / (2 * count)), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return max(0.0, 100 * (centre - half) / (1 + z * z / count)), 100 * (centre + half) / (1 + z * z / count)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("bise")
    p.add_argument("model")
    p.add_argument("--cases", type=int, default=100)
    p.add_argument("--tasks", default="")
    p.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    p.add_argument("--max-tokens", type=int, default=200)
    p.add_argument("--answers")
    p.add_argument("--compare")
    p.add_argument("--record")
    p.add_argument("--at-least")
    p.add_argument("--wrong", type=int, default=0, help="print so many wrong answers of each task")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    o = p.parse_args(sys.argv[1:cut])
    o.options = sys.argv[cut + 1:]   # of bise
    if o.at_least:
        with open(o.at_least, encoding="utf-8") as f:
            wanted = json.load(f)
        o.cases, o.seed, o.tasks = min(o.cases, wanted["cases"]), wanted["seed"], ",".join(wanted["wrong"])
    sys.exit(evaluate(o, {task: sum(i not in wrong for i in range(o.cases)) for task, wrong in wanted["wrong"].items()} if o.at_least else {}))


def evaluate(o, wanted):
    """Asks, prints, keeps; the number of tasks that are below `wanted`."""
    tasks = cases.registry()
    kept = open(o.answers, "w", encoding="utf-8") if o.answers else None
    other, wrong, below = {}, {}, 0
    if o.compare:
        with open(o.compare, encoding="utf-8") as f:
            other = {(a["task"], a["index"]): a["ids"] for a in map(json.loads, f)}
    same = compared = 0
    for task in o.tasks.split(",") if o.tasks else [t for t in tasks if t not in tasks_recall.SLOW]:
        made = [cases.make(task, o.seed, i, tasks) for i in range(o.cases)]
        ids, answers = ask(o.bise, o.model, made, o.options, o.max_tokens)
        verdicts = [judge.right(c, a) for c, a in zip(made, answers)]
        right = sum(verdicts)
        wrong[task] = [i for i, verdict in enumerate(verdicts) if not verdict]
        low, high = interval(right, len(made))
        bad = task in wanted and right < wanted[task] - 1
        below += bad
        print(f"{task:15s} {right:4d} of {len(made)}  {100 * right / len(made):5.1f} %  ({low:.1f} to {high:.1f})"
              + (f"  BELOW the recorded {wanted[task]}" if bad else ""), flush=True)
        if None not in (valid := [judge.valid_json(c, a) for c, a in zip(made, answers)]):
            print(f"  valid by schema {sum(valid)} of {len(made)}")
        for c, a in [(c, a) for c, a, v in zip(made, answers, verdicts) if not v][:o.wrong]:
            print(f"    expected {c.content!r} {c.tool_calls or ''}\n    got      {json.dumps(a, ensure_ascii=False)[:300]}")
        for i, row in enumerate(ids):
            if kept:
                kept.write(json.dumps({"task": task, "index": i, "ids": row}) + "\n")
            if (task, i) in other:
                compared += 1
                same += row == other[task, i]
    if o.compare:
        print(f"same answers: {same} of {compared}")
    if o.record:
        with open(o.record, "w", encoding="utf-8") as f:
            rows = ",\n".join(f'  "{task}": {json.dumps(wrong[task])}' for task in wrong)
            f.write(f'{{\n "seed": {o.seed},\n "cases": {o.cases},\n "wrong": {{\n{rows}\n }}\n}}\n')
    return below


if __name__ == "__main__":
    main()
