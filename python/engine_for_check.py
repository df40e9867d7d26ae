#!/usr/bin/env python3
"""One question of tests/golden/model/check.py, asked of `bise probe`.

    check.py CHECKPOINTS 'python3 engine_for_check.py BISE {model} {prompt} {dtype} [OPTION…]'

Prints the lines that check.py reads: {"position", "top"} for each position, then {"greedy"}. float32 is answered with
--precision reference, bfloat16 with the default precision, static32 with the activations of FP8 layers quantised too.
The goldens' pictures were resized by transformers whatever the layout, so that is asked for here. Further options go to
bise as they are. Python's standard library is enough.
"""
import json
import subprocess
import sys

OPTIONS = {
    "float32": ["--precision", "reference"],
    "bfloat16": [],
    "static32": ["--precision", "reference", "--fp8-static-activations"],
}


def ask(bise, what, model, options, question):
    """The answers to one line, or the end of this script with what bise said."""
    done = subprocess.run([bise, "probe", what, model, "--image-processing", "torch", *options],
                          input=json.dumps(question) + "\n", capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    errors = [a["error"] for a in answers if "error" in a]
    if done.returncode != 0 or errors or not answers:
        sys.exit(f"probe {what}: exit {done.returncode}; {errors or done.stderr.strip()[-300:]}")
    return answers


def main():
    bise, model, prompt, dtype, *more = sys.argv[1:]
    with open(prompt, encoding="utf-8") as f:
        p = json.load(f)
    options = OPTIONS[dtype] + more
    question = {"ids": p["input_ids"], "images": p["images"]}
    for answer in ask(bise, "logits", model, options, {**question, "positions": p["positions"], "top": p["top"]}):
        print(json.dumps({"position": answer["position"], "top": answer["top"]}))
    if dtype != "bfloat16":  # check.py compares greedy tokens only where the numbers are exact
        answer, = ask(bise, "generate", model, options,
                      {**question, "max_tokens": p["greedy"], "temperature": 0, "ignore_eos": True})
        print(json.dumps({"greedy": answer["ids"]}))


if __name__ == "__main__":
    main()
