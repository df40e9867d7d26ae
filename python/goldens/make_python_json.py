#!/usr/bin/env python3
"""Goldens for JSON in Python's dialect: what json.dumps(json.loads(text), ensure_ascii=False) gives.

    make_python_json.py    writes tests/golden/own/python_json.json

Each case is {"text": …, "dumped": …}; dumped is null when json.loads refuses the text. Lone surrogates are kept as
escapes in this file.
"""

import json
import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parents[2]

TEXTS = [
    "{}", "[]", " [ ] ", "{ }", "null", "true", "false", "\"\"", "0", "-0", "-0.0", "0.0", "1.0", "1.50", "1e5", "1E5", "1e+5", "1e-7",
    "1e16", "1e15", "123456789012345678", "12345678901234567890123456789012345678901234567890", "-98765432109876543210",
    "1E400", "-1E400", "1e-400", "-1e-400", "0.0001", "0.00001", "5e-324", "2.2250738585072014e-308", "1.7976931348623157e308",
    "1.7976931348623159e308", "9007199254740993.0", "0.1", "0.30000000000000004", "100000000000000000000.0", "0e999999", "1e99999999999999999999",
    "0." + "0" * 400 + "1e400", "1" * 400 + ".5", "1" * 400 + ".5e-390", "NaN", "Infinity", "-Infinity", "-NaN", "+1", "01", "-01", "1.", ".5",
    "1.e5", "1e", "1e+", "-", "--1", "0x10", "1_000", "nul", "nulll", "True", "tru e", "", " ", "\ufeff{}", "{} {}", "[1,]", "[,1]", "[1 2]",
    "{\"a\":1,}", "{\"a\"}", "{\"a\":}", "{a:1}", "{'a':1}", "{1:2}", "[", "{", "]", "}", "{\"a\":1", "[1", "\"a", "\"a\nb\"", "\"a\tb\"",
    "\"\u0000\"", "\"\u001f\"", "\"\u007f\u0080\u2028\u2029\"", "\"\\/\\b\\f\\n\\r\\t\\\"\\\\\"", "\"\\u0000\\u001f\\u007f\"", "\"\\u00e9\\u00E9\"",
    "\"\\ud83d\\ude00\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ude00\\ud83d\"", "\"\\ud83d\\ud83d\\ude00\"", "\"\\ud83dx\"", "\"\\ud83d\\n\"",
    "\"\\ud83d\\u0041\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud83d\\u12\"", "\"\\x41\"", "\"\\\"", "\"\\", "\"\\u", "\"\\ud83d\\u",
    "{\"b\":1,\"a\":2,\"b\":3}", "{\"a\":1,\"a\":2,\"a\":{\"a\":1,\"a\":null}}", "{\"\":0}", "[\t1\r\n,2 ]", "[1\u00a0]", "[1\f]",
    "{\"y\":1E2,\"x\":-0.0,\"z\":[1,2],\"y\":\"\\u00fc\"}", "[[[[[]]]]]", "\"\U0001f600\u65e5\"", "[1e5,-1.5e-9,123456.789e3]",
    "9" * 4300, "9" * 4301, "-" + "9" * 4300, "[" * 900 + "]" * 900, "[" * 2000,
]


def random_text(r):
    def value(depth):
        kind = r.randrange(8 if depth < 4 else 6)
        if kind == 0:
            return r.choice(["null", "true", "false", "NaN", "-Infinity"])
        if kind == 1:
            return str(r.randrange(-10 ** r.randrange(1, 40), 10 ** r.randrange(1, 40)))
        if kind in (2, 3):
            return repr(r.uniform(-1, 1) * 10.0 ** r.randrange(-320, 308)) if r.random() < 0.7 else f"{r.uniform(-9, 9):.{r.randrange(1, 25)}f}"
        if kind in (4, 5):
            return json.dumps("".join(chr(r.choice([34, 92, 47, 10, 0, 31, 97, 127, 233, 0x2028, 0xd83d, 0xde00, 0x1f600])) for _ in range(r.randrange(6))),
                              ensure_ascii=r.random() < 0.5)
        space = r.choice(["", " ", "\n"])
        if kind == 6:
            return "[" + (space + ",").join(space + value(depth + 1) for _ in range(r.randrange(4))) + space + "]"
        return "{" + ",".join(f"{space}\"{r.choice('abcd')}\"{space}:{space}{value(depth + 1)}" for _ in range(r.randrange(25))) + space + "}"
    text = value(0)
    if r.random() < 0.15:  # break it
        i = r.randrange(len(text) + 1)
        text = text[:i] + r.choice(["", ",", "\"", "}", "1", "\\", "e"]) + text[i + 1:]
    return text


def main():
    r = random.Random(20261121)
    cases = []
    for text in TEXTS + [random_text(r) for _ in range(300)]:
        try:
            dumped = json.dumps(json.loads(text), ensure_ascii=False)
        except (ValueError, RecursionError):
            dumped = None
        cases.append({"text": text, "dumped": dumped})
    out = ROOT / "tests/golden/own"
    out.mkdir(exist_ok=True)
    with open(out / "python_json.json", "w", encoding="ascii") as f:
        f.write("{\"cases\": [\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
