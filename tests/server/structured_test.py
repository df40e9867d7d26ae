#!/usr/bin/env python3
"""Answers of `bise serve` that follow a schema, a grammar, the arguments of a tool."""
import json
import subprocess

from serve_case import BISE, HI, MODEL, NO_THINKING, NOW, WEATHER, Case, WithServer, main


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

    def test_tags_hold_to_their_schemas_and_the_text_around_is_free(self):
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
        old = {"type": "structural_tag", "structures": [{"begin": "<f=x>", "schema": schema, "end": "</f>"}], "triggers": ["<f="]}
        tag = {"type": "tag", "begin": "<f=x>", "content": {"type": "json_schema", "json_schema": schema}, "end": "</f>"}
        new = {"type": "structural_tag", "format": {"type": "tags_with_separator", "tags": [tag], "separator": ";", "at_least_one": True,
                                                     "stop_after_first": True}}
        for endpoint, start in (("/v1/chat/completions", {"messages": HI, "logit_bias": NO_THINKING}), ("/v1/completions", {"prompt": "q"})):
            for fields in ({"response_format": new}, {"structured_outputs": {"structural_tag": json.dumps(new)}}, {"structural_tag": new}):
                choice = self.server.post(endpoint, {**start, **fields, "max_tokens": 80})["choices"][0]
                text = choice["text"] if "text" in choice else choice["message"]["content"]
                self.assertRegex(text, r'^<f=x>\{\s*"a"\s*:\s*[12]\s*\}</f>$')
            free = self.server.post(endpoint, {**start, "response_format": old, "max_tokens": 30})["choices"][0]
            self.assertEqual(free["finish_reason"], "length")
        error = self.assert_refused(self.complete(response_format={"type": "structural_tag", "format": {"type": "frob"}}), 400, None,
                                    "response_format", "invalid_structure")
        self.assertIn("response_format.format.type must be const_string", error["message"])

    def test_blanks_between_the_parts_of_json_are_as_asked(self):
        schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
        texts = [self.server.post("/v1/completions", {"prompt": "q", "guided_json": schema, "guided_whitespace_pattern": " {3}", "seed": seed,
                                                      "max_tokens": 60})["choices"][0]["text"] for seed in range(16)]
        for text in texts:   # JSON needs no blanks, so that one answer may have none
            self.assertEqual(text.count("   "), text.count(" ") / 3)
        self.assertIn("   ", "\n".join(texts))
        text = self.server.post("/v1/completions", {"prompt": "q", "structured_outputs": {"json": schema, "disable_any_whitespace": True}})["choices"][0]["text"]
        self.assertNotIn(" ", text)
        self.assert_refused(self.complete(guided_regex="a", guided_whitespace_pattern=" "), 400, "guided_whitespace_pattern needs a JSON schema",
                            "guided_whitespace_pattern")

    def test_what_cannot_be_followed_is_refused_with_its_reason(self):
        refused = self.complete(guided_json={"type": "object", "not": {}})
        error = self.assert_refused(refused, 400, None, "guided_json", "invalid_structure")
        self.assertIn('Unimplemented keys: ["not"]', error["message"])
        self.assertNotIn("whitespace_pattern", error["message"])
        for field, value in (("guided_regex", "(?=a)b"), ("guided_regex", "["), ("guided_grammar", "start: missing\n")):
            self.assert_refused(self.complete(**{field: value}), 400, None, field, "invalid_structure")


class Tags(Case):
    """What structural tags let pass, by `bise probe structure`."""

    def assert_passes(self, tag, passing, refused):
        line = json.dumps({"structural_tag": tag, "texts": passing + refused})
        done = subprocess.run([BISE, "probe", "structure", MODEL], input=line + "\n", capture_output=True, text=True)
        answer = json.loads(done.stdout or "{}")
        if "not in this build" in done.stdout + done.stderr:
            self.skipTest("structured output is not in this build")
        self.assertEqual(answer.get("accepted"), [True] * len(passing) + [False] * len(refused), done.stdout + done.stderr)

    def test_the_older_form_leaves_the_text_free_until_a_trigger_comes(self):
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
        tag = {"structures": [{"begin": "<f=x>", "schema": schema, "end": "</f>"}, {"begin": "<f=y>", "schema": {"enum": [True]}, "end": "</f>"}],
               "triggers": ["<f="]}
        self.assert_passes(tag, ["", "plain", 'a <f=x>{"a":1}</f> b', '<f=x>{"a":1}</f><f=y>true</f>', "a < b <f"],
                           ["<f=z>", '<f=x>{"a":3}</f>', '<f=x>{"a":1}', "<f=y>true</f> and <f=y>false</f>"])

    def test_triggered_tags_begin_with_their_triggers_and_end_with_one_of_their_ends(self):
        tags = [{"begin": "<abc>", "content": {"type": "any_text"}, "end": "</abc>"},
                {"begin": "<ax>", "content": {"type": "regex", "pattern": "[0-9]+"}, "end": ["</ax>", ";"]}]
        form = {"type": "triggered_tags", "triggers": ["<a", "<ab"], "tags": tags}
        one = {"format": {**form, "at_least_one": True, "stop_after_first": True}}
        self.assert_passes(one, ["x<ax>12;", "x<ax>12</ax>", "<abc>any < thing</abc>"], ["", "x", "x<ax>12;y", "<abc>any", "<ab"])
        self.assert_passes({"format": form}, ["", "x", "x<ax>12;y<abc></abc>"], ["x<ax>12;y<abc>"])

    def test_sequences_tags_and_separators_are_followed(self):
        number = {"type": "tag", "begin": "<n>", "content": {"type": "json_schema", "json_schema": {"type": "integer"}}, "end": ""}
        sequence = [{"type": "const_string", "value": "say: "}, {"type": "any_text"}, number, {"type": "any_text"}]
        self.assert_passes({"format": {"type": "sequence", "elements": sequence}}, ["say: <n>5", "say: hello <n>5 and more"], ["say: hello", "hello"])
        either = {"type": "or", "elements": [{"type": "const_string", "value": "x"}, {"type": "const_string", "value": "y"}]}
        tags = [{"begin": "a", "content": {"type": "const_string", "value": "="}, "end": "1"}, {"begin": "b", "content": either, "end": ""}]
        self.assert_passes({"format": {"type": "tags_with_separator", "separator": ", ", "tags": tags}}, ["", "a=1", "a=1, bx, by"], ["a=1,bx", "bz"])


if __name__ == "__main__":
    main()
