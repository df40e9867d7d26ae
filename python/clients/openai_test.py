#!/usr/bin/env python3
"""The openai package for Python against `bise serve`.

  openai_test.py BISE MODEL [SMOLLM2]     MODEL: tests/golden/model/ckpt/medium/hf-bf16; SMOLLM2: also that model
"""
import json
import pathlib
import sys
import unittest

import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from serve_process import Server  # noqa: E402

BISE, MODEL = sys.argv[1:3]
SMOLLM2 = sys.argv[3:4]
HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "look_up", "description": "looks up", "strict": True, "parameters": {
    "type": "object", "properties": {"word": {"enum": ["wind", "sea"]}}, "required": ["word"], "additionalProperties": False}}}


class Tiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(BISE, MODEL, "--served-model-name", "tiny", "--context", "2048", "--threads", "1").__enter__()
        cls.client = openai.OpenAI(base_url=cls.server.url, api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["tiny"])
        self.assertEqual(self.client.models.retrieve("tiny").object, "model")

    def test_chat(self):
        answer = self.client.chat.completions.create(model="tiny", messages=HI, max_completion_tokens=5, seed=1, logprobs=True, top_logprobs=2)
        self.assertEqual(answer.usage.completion_tokens, 5)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(len(answer.choices[0].logprobs.content[0].top_logprobs), 2)

    def test_a_stream_adds_up_to_the_answer(self):
        asked = dict(model="tiny", messages=HI, max_tokens=20, seed=2)
        whole = self.client.chat.completions.create(**asked)
        chunks = list(self.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.total_tokens, whole.usage.total_tokens)
        self.assertEqual({c.id for c in chunks}, {chunks[0].id})

    def test_the_stream_helper_gathers_a_forced_call(self):
        if not self.structured():
            self.skipTest("structured output is not in this build")
        asked = dict(model="tiny", messages=HI, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=120,
                     extra_body={"logit_bias": {"34": -100}}, seed=3)
        whole = self.client.chat.completions.create(**asked).choices[0]
        self.assertEqual(whole.finish_reason, "tool_calls")
        with self.client.chat.completions.stream(**asked) as stream:
            for _ in stream:
                pass
            gathered = stream.get_final_completion().choices[0]
        self.assertEqual(gathered.message.role, "assistant")
        self.assertEqual(gathered.finish_reason, "tool_calls")
        call, same = whole.message.tool_calls[0], gathered.message.tool_calls[0]
        self.assertEqual((call.id, call.function.name, call.function.arguments), (same.id, same.function.name, same.function.arguments))
        self.assertIn(json.loads(call.function.arguments)["word"], ("wind", "sea"))
        history = HI + [{"role": "assistant", "tool_calls": [call.model_dump()]},
                        {"role": "tool", "tool_call_id": call.id, "content": "a wind"}, {"role": "user", "content": "and?"}]
        self.client.chat.completions.create(model="tiny", messages=history, tools=[TOOL], max_tokens=2)

    def test_completions(self):
        answer = self.client.completions.create(model="tiny", prompt=["a", "b"], max_tokens=3, echo=True, logprobs=1)
        self.assertEqual([c.index for c in answer.choices], [0, 1])
        self.assertIsNone(answer.choices[0].logprobs.token_logprobs[0])
        chunks = list(self.client.completions.create(model="tiny", prompt="a", max_tokens=3, stream=True))
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")

    def test_errors_are_of_the_classes_that_programs_catch(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model="tiny", messages=HI, temperature=9)
        self.assertEqual((caught.exception.param, caught.exception.code), ("temperature", "invalid_value"))
        self.assertIsNotNone(caught.exception.request_id)
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="other", messages=HI)
        with self.assertRaisesRegex(openai.BadRequestError, "maximum context length"):
            self.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a b c d " * 2000}])

    def structured(self):
        return json.loads(self.server.get("/v1/models")[2])["data"][0]["meta"]["structured_output"]


@unittest.skipUnless(SMOLLM2, "without SmolLM2")
class Demo(unittest.TestCase):
    def test_an_answer_makes_sense(self):
        with Server(BISE, "smollm2") as server:
            client = openai.OpenAI(base_url=server.url, api_key="none")
            asked = dict(model="smollm2", messages=[{"role": "user", "content": "What color is the sky?"}], temperature=0, max_tokens=20)
            self.assertIn("blue", client.chat.completions.create(**asked).choices[0].message.content)
            streamed = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**asked, stream=True))
            self.assertIn("blue", streamed)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
