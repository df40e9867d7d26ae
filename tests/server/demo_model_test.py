#!/usr/bin/env python3
"""`bise serve` with the demo model: real tool calls, reasoning, pictures, JSON. Held-out cases of its generator, all asked at
once, answer by answer the same as `bise probe` gives one by one."""
import concurrent.futures
import json
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python/demo_model")]
import cases  # noqa: E402
import evaluate  # noqa: E402
import judge  # noqa: E402
from sanitized import is_sanitized  # noqa: E402
from serve_case import BISE, Case, Server, main  # noqa: E402

MODEL = ROOT / "models/demo"
TASKS = ("tool_call", "tool_result", "sum_think", "json", "picture", "picture_two", "recall_chat")
EACH = 2 if is_sanitized(BISE) else 4   # cases of a task
LONGEST = 120


def schema_of(case):
    """The schema that stands in the request's first message."""
    text = case.request["messages"][0]["content"]
    return json.JSONDecoder().raw_decode(text[text.index("{"):])[0]


def called(message):
    """The calls without their ids, which are drawn."""
    return [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]


def said(message):
    return message.get("content") or "", message.get("reasoning_content") or "", called(message)


def joined(events):
    """The message that a stream's deltas make, and its finish reason."""
    message, reason = {"content": "", "reasoning_content": "", "tool_calls": []}, None
    for event in events:
        for choice in event["choices"]:
            delta, reason = choice["delta"], choice["finish_reason"] or reason
            for key in ("content", "reasoning_content"):
                message[key] += delta.get(key) or ""
            for call in delta.get("tool_calls") or []:
                if call["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({"id": call["id"], "function": {"name": call["function"]["name"], "arguments": ""}})
                message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"].get("arguments") or ""
    return message, reason


class DemoModel(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(BISE, MODEL, "--deterministic", "--context", "4096", "--kv-cache-tokens", "65536").__enter__()
        registry = cases.registry()
        cls.cases = [cases.make(task, evaluate.HELD_OUT_SEED, i, registry) for task in TASKS for i in range(EACH)]
        cls.bodies = [{**c.request, "temperature": 0, "max_tokens": LONGEST} for c in cls.cases]
        with concurrent.futures.ThreadPoolExecutor(24) as pool:   # one batch of everything
            whole = [pool.submit(cls.server.post, "/v1/chat/completions", b) for b in cls.bodies]
            streamed = [pool.submit(cls.server.events, "/v1/chat/completions", b) for b in cls.bodies]
            cls.whole = [w.result()["choices"][0] for w in whole]
            cls.streamed = [joined(s.result()) for s in streamed]

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def test_an_answer_in_company_is_that_of_the_program_alone(self):
        _, alone = evaluate.ask(BISE, str(MODEL), self.cases, ["--deterministic"], LONGEST)
        for case, want, got in zip(self.cases, alone, self.whole):
            with self.subTest(case.request["messages"][-1]["content"]):
                self.assertEqual(said(got["message"]), said(want))

    def test_a_stream_says_what_the_whole_answer_says(self):
        for want, (message, reason) in zip(self.whole, self.streamed):
            self.assertEqual((said(message), reason), (said(want["message"]), want["finish_reason"]))

    def test_most_answers_are_right(self):
        right = {task: sum(judge.right(c, w["message"]) for c, w in zip(self.cases, self.whole) if c.task == task) for task in TASKS}
        print(f"right of {EACH}: {right}")
        self.assertGreater(sum(right.values()), 0.6 * len(self.cases))
        for task in ("tool_call", "tool_result", "sum_think"):
            self.assertGreaterEqual(right[task], EACH // 2, task)

    def test_reasons_to_finish_and_reasoning_stand_where_they_belong(self):
        for case, choice in zip(self.cases, self.whole):
            message = choice["message"]
            if choice["finish_reason"] != "length":
                self.assertEqual(choice["finish_reason"], "tool_calls" if called(message) else "stop")
            self.assertNotIn("THINK", said(message)[0])
            if case.task == "sum_think":
                self.assertIn("=", message["reasoning_content"])
            for call in message.get("tool_calls") or []:
                json.loads(call["function"]["arguments"])

    def test_a_result_given_back_to_the_id_of_a_call_is_used(self):
        tools = json.loads((MODEL / "examples/tools.json").read_text())
        messages = [{"role": "user", "content": "What is the weather in Paris?"}]
        body = {"messages": messages, "tools": tools, "temperature": 0, "max_tokens": LONGEST}
        first = self.server.post("/v1/chat/completions", body)["choices"][0]["message"]
        self.assertEqual(called(first), [("get_weather", '{"city": "Paris"}')])
        messages += [first, {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": '{"degrees": 17, "sky": "sun"}'}]
        second = self.server.post("/v1/chat/completions", body)["choices"][0]
        self.assertEqual(second["finish_reason"], "stop")
        self.assertIn("17 degrees", second["message"]["content"])

    def test_with_a_schema_every_answer_is_valid_json_of_it(self):
        if not json.loads(self.server.get("/v1/models")[2])["data"][0]["meta"]["structured_output"]:
            self.skipTest("structured output is not in this build")
        registry, valid = cases.registry(), 0
        for i in range(2 * EACH):
            case = cases.make("json", evaluate.HELD_OUT_SEED, i, registry)
            schema = {**schema_of(case), "additionalProperties": False}
            answer = self.server.post("/v1/chat/completions", {
                **case.request, "temperature": 0, "max_tokens": LONGEST,
                "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}})["choices"][0]
            if answer["finish_reason"] == "length":
                continue   # a name that has no end: said, and not valid
            value = json.loads(answer["message"]["content"])
            self.assertEqual(sorted(value), sorted(schema["required"]))
            valid += 1
        self.assertGreaterEqual(valid, EACH)   # at least half came to their end


if __name__ == "__main__":
    main()
