#!/usr/bin/env python3
"""The generator's cases are what they say: python3 generator_test.py (standard library alone)."""
import base64
import copy
import json
import random
import re
import sys
import unittest
import zlib
from dataclasses import asdict

import cases
import judge
import tasks_recall
import tasks_text

TASKS = cases.registry()
SHORT = [t for t in TASKS if t not in tasks_recall.SLOW]


def some(task, count=60):
    return [cases.make(task, 7, i, TASKS) for i in range(count)]


def last_user_text(case):
    content = [m for m in case.request["messages"] if m["role"] == "user"][-1]["content"]
    return content if isinstance(content, str) else " ".join(c.get("text", "") for c in content)


class Generator(unittest.TestCase):
    def test_a_case_depends_on_seed_task_and_index_alone(self):
        for task in SHORT:
            forward = [json.dumps(asdict(c)) for c in some(task, 8)]
            backward = [json.dumps(asdict(cases.make(task, 7, i, TASKS))) for i in reversed(range(8))]
            self.assertEqual(forward, backward[::-1], task)
            self.assertNotEqual(forward[0], json.dumps(asdict(cases.make(task, 8, 0, TASKS))), task)

    def test_the_right_answer_is_judged_right_and_an_altered_one_wrong(self):
        for task in SHORT:
            for case in some(task, 20):
                message = case.answer()
                self.assertTrue(judge.right(case, message), case)
                bad = copy.deepcopy(message)
                if bad.get("tool_calls"):
                    bad["tool_calls"][0]["function"]["arguments"] = '{"other": 1}'
                else:
                    bad["content"] += "x"
                self.assertFalse(judge.right(case, bad), case)

    def test_a_right_answer_follows_the_schema_it_was_told(self):
        for case in some("json", 50):
            self.assertTrue(judge.valid_json(case, {"content": case.content}), case)
            for bad in (case.content[:-1], "[]", "{}", json.dumps({k: None for k in json.loads(case.content)})):
                self.assertFalse(judge.valid_json(case, {"content": bad}), bad)
        self.assertFalse(judge.follows({"type": "integer"}, True))
        self.assertFalse(judge.follows({"type": "array", "items": {"type": "string"}}, ["a", 1]))
        self.assertFalse(judge.follows({"type": "string", "enum": ["a"]}, "b"))

    def test_json_is_judged_by_value_and_booleans_are_no_numbers(self):
        self.assertTrue(judge.same({"a": [1, 2.0]}, {"a": [1.0, 2]}))
        self.assertTrue(judge.same({"a": 1, "b": 2}, {"b": 2, "a": 1}))
        self.assertFalse(judge.same({"a": True}, {"a": 1}))
        self.assertFalse(judge.same([1], [1, 1]))

    def test_every_step_of_a_chain_is_right_and_the_digits_give_the_answer(self):
        rng = random.Random(1)
        for _ in range(2000):
            _, chain, answer = tasks_text.sum_turn(rng)
            parts, steps = chain.split(":")
            self.assertEqual(len({len(n) for n in re.split("[+-]", parts)}), 1, chain)
            self.assertEqual(eval(re.sub(r"\b0+(?=\d)", "", parts)), int(answer))
            results = []
            for step in steps.split(","):
                left, right = step.split("=")
                value = int(left) if left.isdigit() else eval(left)
                self.assertEqual(value, int(right), chain)
                results.append(int(right))
            digits = "".join(str(r % 10) for r in reversed(results[:-1]))
            self.assertEqual(int(f"{results[-1]}{digits}"), int(answer), chain)

    def test_calls_name_offered_tools_and_their_arguments_stand_in_the_request(self):
        for case in some("tool_call", 300) + some("tool_rivals", 300) + some("tool_names", 100):
            offered = {t["function"]["name"]: t["function"]["parameters"] for t in case.request["tools"]}
            text = last_user_text(case)
            for call in case.tool_calls:
                self.assertEqual(list(call["arguments"]), offered[call["name"]]["required"])
                for value in call["arguments"].values():
                    for leaf in value.values() if isinstance(value, dict) else [value]:
                        self.assertIn(str(leaf), text)
            self.assertEqual(bool(case.tool_calls), not case.content)

    def test_a_recalled_answer_was_told_and_an_unknown_one_was_not(self):
        for task in ("recall_chat", "recall_rivals", "recall_short", "recall_1k", "refuse"):
            unknown = 0
            for case in some(task, 200):
                told = " ".join(m["content"] for m in case.request["messages"] if m["role"] == "user")
                if case.content == tasks_recall.UNKNOWN:
                    unknown += 1
                else:
                    self.assertIn(case.content, told)
            self.assertTrue(10 < unknown < 120, f"{task}: {unknown}")

    def test_an_answer_in_json_has_the_keys_of_its_schema_in_order(self):
        for case in some("json", 200):
            text = " ".join(m["content"] for m in case.request["messages"])
            schema = json.JSONDecoder().raw_decode(text[text.index('{"type"'):])[0]
            self.assertEqual(list(json.loads(case.content)), schema["required"])
            self.assertEqual(list(schema["properties"]), schema["required"])

    def test_pictures_are_whole_png_files_with_what_is_asked_for(self):
        for task in ("picture", "picture_digits", "picture_two"):
            for case in some(task, 40):
                urls = [c["image_url"]["url"] for c in case.request["messages"][0]["content"] if c["type"] == "image_url"]
                self.assertEqual(len(urls), 2 if task == "picture_two" else 1)
                for url in urls:
                    png = base64.b64decode(url.split(",")[1])
                    width, height = (int.from_bytes(png[a:a + 4], "big") for a in (16, 20))
                    start = png.index(b"IDAT") + 4
                    pixels = zlib.decompress(png[start:start + int.from_bytes(png[start - 8:start - 4], "big")])
                    self.assertEqual(len(pixels), height * (3 * width + 1))
                    self.assertGreater(len(set(pixels[i:i + 3] for i in range(1, 3 * width, 3))) + len(set(pixels)), 2)

    def test_marks_lie_in_their_pictures_and_say_what_is_asked_for(self):
        for task in ("picture", "picture_digits", "picture_two"):
            for case in some(task, 60):
                told = " ".join(words for picture in case.marks for *_, words in picture["marks"])
                for picture in case.marks:
                    width, height = picture["size"]
                    self.assertTrue(picture["marks"])
                    for left, top, right, bottom, _ in picture["marks"]:
                        self.assertTrue(0 <= left < right <= width and 0 <= top < bottom <= height, case)
                if task == "picture_digits" and case.content.isdigit():
                    self.assertEqual("".join(words[-1] for *_, words in case.marks[0]["marks"]), case.content)
                if last_user_text(case).startswith("Describe the picture"):
                    self.assertEqual(case.content.replace(",", ""), told)

    def test_held_out_cases_are_not_among_those_of_training(self):
        from evaluate import HELD_OUT_SEED
        for task in ("sum_think", "tool_call", "picture"):
            seen = {json.dumps(cases.make(task, f"1/{step}", i, TASKS).request) for step in range(20) for i in range(10)}
            held = {json.dumps(cases.make(task, HELD_OUT_SEED, i, TASKS).request) for i in range(200)}
            self.assertLess(len(seen & held), 3, task)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main()
