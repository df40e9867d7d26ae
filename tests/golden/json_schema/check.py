#!/usr/bin/env python3
"""Holds `bise probe structure` against the schemas of the JSON Schema Test Suite.

  check.py BISE MODEL [SCHEMAS.jsonl] [--every N]     MODEL: a folder or a tekken.json; N: of the schemas only each Nth
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

EVERY = int(sys.argv[sys.argv.index("--every") + 1]) if "--every" in sys.argv else 1
ARGUMENTS = sys.argv[1:sys.argv.index("--every")] if "--every" in sys.argv else sys.argv[1:]
BISE, MODEL = ARGUMENTS[:2]
HERE = pathlib.Path(__file__).resolve().parent
LINES = [json.loads(line) for line in open(ARGUMENTS[2] if len(ARGUMENTS) > 2 else HERE / "draft2020-12.jsonl", encoding="utf-8")][::EVERY]
LEAST_SUPPORTED, LEAST_VALID = 0.60, 0.90  # of all schemas; of the valid instances of those

with tempfile.TemporaryFile("w+", encoding="utf-8") as questions:
    for line in LINES:
        question = {"schema": line["schema"], "texts": line["valid"] + line["invalid"], "walks": 3, "max_tokens": 120}
        questions.write(json.dumps(question) + "\n")
    questions.seek(0)
    done = subprocess.run([BISE, "probe", "structure", MODEL], stdin=questions, capture_output=True, text=True, check=True)
answers = [json.loads(text) for text in done.stdout.splitlines()]
assert len(answers) == len(LINES), (len(answers), len(LINES))
if "not in this build" in answers[0].get("error", {}).get("message", ""):
    print("skipped: structured output is not in this build")
    sys.exit(77)

faults, times, compile_times = [], [], []
supported = passed = valid = finished = walks = 0
for line, answer in zip(LINES, answers):
    place = f"{line['file']}: {line['about']}"
    if "error" in answer:
        message = answer["error"]["message"]
        if not re.search(r"failed to compile JSON schema: .{10}|is false: no value satisfies it", message):
            faults.append(f"{place}: refused without a reason that helps: {message[:300]}")
        continue
    supported += 1
    times += answer["mask_us"]
    compile_times.append(answer["compile_us"])
    good, bad = answer["accepted"][:len(line["valid"])], answer["accepted"][len(line["valid"]):]
    valid += len(good)
    passed += sum(good)
    faults += [f"{place}: lets {text} pass" for text, accepted in zip(line["invalid"], bad) if accepted]
    for text, ended in zip(answer["walks"], answer["finished"]):
        walks += 1
        if ended:
            finished += 1
            try:
                json.loads(text)
            except ValueError as error:
                faults.append(f"{place}: random text {text!r} is no JSON: {error}")
times.sort()
compile_times.sort()
share = lambda values, part: values[min(len(values) - 1, int(part * len(values)))] if values else 0  # noqa: E731
print(f"{len(LINES)} schemas, {supported} enforced, the others refused; {passed} of {valid} valid instances pass; "
      f"{finished} of {walks} random texts came to an end")
print(f"{len(times)} masks: median {share(times, .5):.0f} us, P99 {share(times, .99):.0f} us, worst {times[-1]:.0f} us; "
      f"compiling: median {share(compile_times, .5):.0f} us, worst {compile_times[-1]:.0f} us")
if EVERY == 1 and supported < LEAST_SUPPORTED * len(LINES):
    faults.append(f"only {supported} of {len(LINES)} schemas are enforced")
if EVERY == 1 and passed < LEAST_VALID * valid:
    faults.append(f"only {passed} of {valid} valid instances pass")
for text in faults[:40]:
    print("FAULT:", text)
print(f"{len(faults)} faults")
sys.exit(1 if faults else 0)
