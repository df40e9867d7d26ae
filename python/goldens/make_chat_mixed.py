#!/usr/bin/env python3
"""Goldens for chat encoding of random requests, sound and broken, for every tokenizer version, made with mistral_common.

    make_chat_mixed.py     writes tests/golden/own/chat_mixed.json

The schema is that of tests/golden/chat/encode.json. Left out are the few requests on which our lenient rules differ from
the reference on purpose: sampling fields out of range, nulls where they can only mean "absent".
"""

import json
import logging
import pathlib
import random
import tempfile
import warnings

import make_chat_v3
from make_chat_v3 import ROOT, make

PER_VERSION = 70
TEXTS = ["", "a", " b ", "c  ", "  ", "\n", "Hello", "[INST]", "é\ud83d", "\ude00x", "{\"a\":1}", "42", "日本語", "x\n ",
         "{\"k\": [1,2.0,1e5,{}]}", "[/THINK]", "\u0000\u007f", "12345678901234567890123", "NaN", "{} x", "don't"]
ARGUMENTS = ["", "{}", "{\"a\":1}", "x=1", "  ", "{\"a\": 1,}", "[1,2", "{\"b\":1E2,\"a\":-0,\"b\":\"\\u00e9\\ud83d\\ude00\\ud83d\"}",
             "42", "\"s\"", "{\"n\":123456789012345678901234567890.5e-10,\"m\":98765432109876543210987654321}",
             "{\"t\":true,\"x\":NaN,\"y\":-Infinity,\"z\":1E400}", "{\"p\":\"a\\/b\\n\\u0001\"}", "\ufeff{}", "01", "1.",
             "{\"a\":1e-7,\"b\":1e16,\"d\":5e-324,\"f\":0.0001,\"g\":0.00001}", {"a": 1e3, "ü": [None]}, {}, None, 5, [1],
             "[" * 2000, "{\"a\": \"\t\"}", "{\"a\" :1 , \"b\":\t2}\n", "-", "-0.0"]
IDS = ["aaaaaaaaa", "bbbbbbbbb", "Ab1Cd2Ef3", "call_1", "", "null", "k"]
NAMES = ["add", "f.g", "a b", "x" * 65, "save-note_2", "n\n", ""]
SOUND = [{}, None, {"type": "object", "properties": {"x": {"type": "number"}, "a": {"enum": [1.5, None]}}},
         {"type": "object", "description": "Für", "minimum": 1e5, "x": 12345678901234567890}, {"items": [{"type": "string"}, True]},
         {"dependencies": {"a": ["b"], "c": {"type": "null"}}}, {"minLength": 2.0}, {"default": {"type": 7}}]
BROKEN = [{"type": "objekt"}, {"properties": 5}, {"required": ["a", "a"]}, "s", {"items": []}, {"anyOf": []}, {"minLength": -1},
          {"not": {"type": 7}}, {"multipleOf": 0}, {"if": {"const": 1}, "then": 5}, {"dependencies": {"d": 5}}]


class Requests:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def maybe(self, p):
        return self.r.random() < p

    def image(self):
        width, height = self.r.choice([(1, 1), (28, 28), (29, 28), (60, 30), (30, 90)])
        url = make.image(width, height, self.r.choice(["png", "png", "gif"]))["image_url"]["url"]
        if self.maybe(0.2):
            url = self.r.choice(["data:image/png;base64,", "data:,x", "ftp://x", "data:image/png;base64,!!!!", "x",
                                 "data:;charset=x;base64,iVBO", url.replace("image/png", "text/plain;x=y")])
        return {"type": "image_url", "image_url": self.r.choice([url, {"url": url}, {"url": url, "detail": "low"}, {"url": url, "x": 1}])}

    def part(self, role):
        if self.maybe(0.55):
            return {"type": "text", "text": self.r.choice(TEXTS), **({"x": 1} if self.maybe(0.1) else {})}
        if role in ("user", "tool") and self.maybe(0.7):
            return self.image()
        if role in ("assistant", "system") and self.maybe(0.8):
            return {"type": "thinking", "thinking": self.r.choice(TEXTS + [[make.text("q"), "w", {}]]),
                    **self.r.choice([{}, {}, {"closed": False}, {"closed": "no"}, {"signature": "x"}])}
        return self.r.choice([{"type": "text"}, {"text": "x"}, {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                              {"type": "refusal", "refusal": "x"}, "s", {"type": "text", "text": 5}, {"type": "thinking", "thinking": "x"}])

    def content(self, role, clean):
        if self.maybe(0.6):
            return self.r.choice(TEXTS)
        if clean:
            return [make.text(self.r.choice(TEXTS)) for _ in range(self.r.randint(0, 3))]
        if self.maybe(0.9):
            return [self.part(role) for _ in range(self.r.randint(0, 3))]
        return self.r.choice([None, 5, []])

    def calls_and_results(self, clean):
        calls = [make.call(i, "add", self.r.choice(ARGUMENTS)) for i in ["aaaaaaaaa", "bbbbbbbbb", "ccccccccc"][:self.r.randint(1, 3)]]
        for c in calls:
            if self.maybe(0.15):
                c["id"] = self.r.choice(IDS)
            if not clean and self.maybe(0.1):
                c["function"]["name"] = self.r.choice(NAMES)
            if not clean and self.maybe(0.1):
                del c[self.r.choice(["id", "type", "function"])]
        yield {"role": "assistant", "tool_calls": calls,
               **self.r.choice([{}, {"content": ""}, {"content": None}, {"content": "Hm. "}, {"content": [{"type": "thinking", "thinking": "t"}]}])}
        results = [{"role": "tool", "tool_call_id": c.get("id"), "content": self.content("tool", clean)} for c in calls]
        if self.maybe(0.4):
            self.r.shuffle(results)
        if self.maybe(0.1):
            results.pop()
        elif self.maybe(0.1):
            results.append(dict(results[0]))
        for result in results:
            if self.maybe(0.05):
                del result["tool_call_id"]
            if self.maybe(0.1):
                result["name"] = self.r.choice(NAMES)
        yield from results

    def request(self):
        clean, messages = self.maybe(0.6), []
        if self.maybe(0.4):
            messages.append({"role": self.r.choice(["system", "developer"]), "content": self.content("system", clean)})
        for _ in range(self.r.randint(1, 4)):
            kind = self.r.random()
            if kind < 0.45:
                messages.append({"role": "user", "content": self.content("user", clean and self.maybe(0.7))})
            elif kind < 0.65:
                m = {"role": "assistant", "content": self.content("assistant", clean and self.maybe(0.6))}
                if self.maybe(0.3):
                    m[self.r.choice(["reasoning", "reasoning_content"])] = self.r.choice(TEXTS + [None])
                messages.append(m)
            elif kind < 0.92:
                messages += self.calls_and_results(clean)
            else:
                messages.append({"role": self.r.choice(["system", "ghost", "tool"]), "content": self.content("system", clean)})
        if self.maybe(0.7) and messages[-1]["role"] not in ("user", "tool"):
            messages.append({"role": "user", "content": self.content("user", clean)})
        body = {"model": "m", "messages": messages}
        if self.maybe(0.1):
            messages[-1]["prefix"] = self.r.choice([True, True, False])
        if self.maybe(0.08):
            body["continue_final_message"] = self.r.choice([True, False, "yes", 2])
        if self.maybe(0.5):
            body["tools"] = [{"type": "function", "function": {
                "name": self.r.choice(NAMES) if not clean and self.maybe(0.2) else "add",
                **self.r.choice([{}, {"description": "dé\"s"}, {"description": None}, {"strict": True}]),
                **({"parameters": self.r.choice(SOUND if clean else SOUND + BROKEN)} if self.maybe(0.8) else {})}}
                for _ in range(self.r.randint(0, 2))]
        if self.maybe(0.2):
            body["reasoning_effort"] = self.r.choice(["none", "high", "low", "max", "loud", None, 5])
        if self.maybe(0.2):
            body["response_format"] = self.r.choice([
                {"type": "text"}, {"type": "json_object"}, {}, {"type": "json_schema"}, {"type": "x"},
                {"type": "json_schema", "json_schema": {"name": "l", "schema": self.r.choice(SOUND[2:] + BROKEN)}},
                {"type": "json_schema", "json_schema": {"name": "l", "schema": {"z": 1, "type": "array", "a": {"y": 1e5}}, "strict": True}}])
        if self.maybe(0.15):
            body["tool_choice"] = self.r.choice(["auto", "none", "any", "required", "x", {"type": "function", "function": {"name": "add"}},
                                                 {"function": {"name": "zz"}}])
        return body


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    requests = Requests(20261121)
    with tempfile.TemporaryDirectory() as folder:
        paths = make.write_tekken(folder, ROOT / "tests/golden/chat/tekken.json.gz")
        paths = {"v3": pathlib.Path(folder) / "tekken.json", **paths}
        make_chat_v3.write_v3(paths["v3"])
        references = {name: make.Reference(path) for name, path in paths.items()}
    picked = [(f"random {i}", version, json.loads(json.dumps(requests.request()))) for version in references for i in range(PER_VERSION)]
    cases = make.make_encode(references, picked)
    for case in cases:
        if case["tokenizer"] == "v3":
            case.pop("image_grid", None)  # counted in merged patches of 28 pixels there
    make.dump(ROOT / "tests/golden/own/chat_mixed.json",
              {"made_with": "mistral_common " + make.importlib.metadata.version("mistral_common")}, cases)


if __name__ == "__main__":
    main()
