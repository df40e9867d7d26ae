#!/usr/bin/env python3
"""Answers of `bise serve` that follow a schema, a grammar, the arguments of a tool."""
import json

from serve_case import HI, NO_THINKING, NOW, WEATHER, WithServer, main


class Structured(WithServer):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.skip_without_structures()

    def test_required_calls_follow_their_schemas_streamed_or_not(self):
        for seed in range(4):
            body = dict(messages=HI, tools=[WEATHER, NOW], tool_choice={"type": "function", "function": {"name": "get_weather"}},
                        parallel_tool_calls=False, seed=seed, logit_bias=NO_THINKING, max_tokens=200)
            answer = self.server.post("/v1/chat/completions", body)["choices"][0]
            self.assertEqual(answer["finish_reason"], "tool_calls")
            self.assertIsNone(answer["message"]["content"])
            calls = answer["message"]["tool_calls"]
            self.assertEqual(len(calls), 1)
            self.assertEqual((calls[0]["type"], calls[0]["function"]["name"]), ("function", "get_weather"))
            self.assertRegex(calls[0]["id"], "^[a-zA-Z0-9]{9}$")
            arguments = json.loads(calls[0]["function"]["arguments"])
            self.assertEqual(set(arguments), {"city", "days"})
            self.assertIn(arguments["city"], ("Bern", "Sion"))
            self.assertIn(arguments["days"], range(10))
            streamed = {"role": "", "name": "", "arguments": "", "id": "", "finish": []}
            for event in self.server.events("/v1/chat/completions", body):
                choice = event["choices"][0]
                streamed["role"] += choice["delta"].get("role", "")
                for call in choice["delta"].get("tool_calls", []):
                    self.assertEqual(call["index"], 0)
                    streamed["id"] += call.get("id", "")
                    streamed["name"] += call["function"].get("name", "")
                    streamed["arguments"] += call["function"].get("arguments", "")
                streamed["finish"] += [choice["finish_reason"]] if choice["finish_reason"] else []
            self.assertEqual(streamed, {"role": "assistant", "name": "get_weather", "id": calls[0]["id"],
                                        "arguments": calls[0]["function"]["arguments"], "finish": ["tool_calls"]})

    def test_an_answer_has_the_structure_that_was_asked_for(self):
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
        formats = {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            "structured_outputs": {"json": schema},
            "guided_json": schema,
        }
        for field, value in formats.items():
            text = self.server.post("/v1/chat/completions", {"messages": HI, field: value, "logit_bias": NO_THINKING, "max_tokens": 60})
            self.assertIn(json.loads(text["choices"][0]["message"]["content"])["a"], (1, 2), field)
        for field, value, pattern in (("guided_regex", "[ab]{2}/c", "^[ab]{2}/c$"), ("guided_choice", ["yes", "no"], "^(yes|no)$"),
                                      ("guided_grammar", 'start: "x" | "y"\n', "^[xy]$")):
            text = self.server.post("/v1/completions", {"prompt": "q", field: value})["choices"][0]
            self.assertRegex(text["text"], pattern)
            self.assertEqual(text["finish_reason"], "stop")

    def test_masks_are_counted(self):
        self.server.post("/v1/completions", {"prompt": "q", "guided_regex": "a{5}", "max_tokens": 3})
        counts = [line for line in self.server.get("/metrics")[2].splitlines() if line.startswith("bise_mask_seconds_count")]
        self.assertGreater(float(counts[0].rsplit(" ", 1)[1]), 0)

    def test_a_structure_cut_by_length_says_so(self):
        answer = self.server.post("/v1/completions", {"prompt": "q", "guided_regex": "a{50}", "max_tokens": 3})["choices"][0]
        self.assertEqual(answer["finish_reason"], "length")
        self.assertRegex(answer["text"], "^a+$")

    def test_what_cannot_be_followed_is_refused_with_its_reason(self):
        refused = self.complete(guided_json={"type": "object", "not": {}})
        error = self.assert_refused(refused, 400, None, "guided_json", "invalid_structure")
        self.assertIn('Unimplemented keys: ["not"]', error["message"])
        self.assertNotIn("whitespace_pattern", error["message"])
        for field, value in (("guided_regex", "(?=a)b"), ("guided_regex", "["), ("guided_grammar", "start: missing\n")):
            self.assert_refused(self.complete(**{field: value}), 400, None, field, "invalid_structure")


if __name__ == "__main__":
    main()
