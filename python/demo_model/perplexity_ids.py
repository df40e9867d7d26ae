#!/usr/bin/env python3
"""The right answers to held-out cases as token ids, for `bise eval ppl --ids`: JSON lines {"ids": [...], "first": n}, where the ids
end with the answer and n is its first token.

    perplexity_ids.py TEKKEN_JSON OUT.jsonl [--cases N]
"""
import argparse
import json
import os

import cases
import evaluate
from render import Renderer

TASKS = ("who", "sum_think", "sum_direct", "json", "copy", "recall_chat", "refuse", "recall_short", "tool_call", "tool_result", "recall_1k")


def scored(ids, learnt):
    """(ids up to the end of the last answer, its first token)."""
    end = len(ids) - list(reversed(learnt)).index(True)
    first = end
    while first and learnt[first - 1]:
        first -= 1
    return ids[:end], first


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("tekken")
    p.add_argument("out")
    p.add_argument("--cases", type=int, default=60)
    o = p.parse_args()
    renderer, tasks = Renderer(o.tekken), cases.registry()
    with open(o.out + ".part", "w", encoding="utf-8") as f:
        for name in TASKS:
            for i in range(o.cases):
                ids, learnt, _ = renderer.whole(cases.make(name, evaluate.HELD_OUT_SEED, i, tasks))
                ids, first = scored(list(map(int, ids)), learnt)
                f.write(json.dumps({"ids": ids, "first": first}) + "\n")
    os.replace(o.out + ".part", o.out)


if __name__ == "__main__":
    main()
