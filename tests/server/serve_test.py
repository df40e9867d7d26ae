#!/usr/bin/env python3
"""`bise serve` over real sockets, with the tiny golden models.

  serve_test.py BISE GOLDEN     BISE: the binary, GOLDEN: the folder tests/golden
"""
import base64
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
from serve_process import Server  # noqa: E402

BISE, GOLDEN = sys.argv[1], pathlib.Path(sys.argv[2])
MODEL = GOLDEN / "model/ckpt/medium/hf-bf16"
OPTIONS = ("--served-model-name", "tiny", "--context", "2048", "--kv-cache-tokens", "16384", "--threads", "1",
           "--header-timeout", "1", "--body-timeout", "1", "--idle-timeout", "3")
HI = [{"role": "user", "content": "hi"}]
WEATHER = {"type": "function", "function": {"name": "get_weather", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Bern", "Sion"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city", "days"], "additionalProperties": False}}}
NOW = {"type": "function", "function": {"name": "now"}}
NO_THINKING = {"34": -100}  # the tiny model's words mean nothing: it would think for ever


class Case(unittest.TestCase):
    def assert_refused(self, answer, status, message, param=None, code=None):
        self.assertEqual(answer[0], status, answer[2])
        error = json.loads(answer[2])["error"]
        self.assertEqual(error["status"], status)
        if message is not None:
            self.assertEqual(error["message"], message)
        self.assertEqual(error["param"], param)
        if code is not None:
            self.assertEqual(error["code"], code)
        self.assertIn("x-request-id", answer[1])
        return error


class WithServer(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(BISE, MODEL, *OPTIONS).__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def chat(self, **body):
        return self.server.request("POST", "/v1/chat/completions", {"messages": HI, "max_tokens": 4, **body})

    def complete(self, **body):
        return self.server.request("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 4, **body})


class Structured(WithServer):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        models = json.loads(cls.server.get("/v1/models")[2])
        if not models["data"][0]["meta"]["structured_output"]:
            cls.tearDownClass()
            raise unittest.SkipTest("structured output is not in this build")

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


class Answers(WithServer):
    def test_stream_and_whole_answer_say_the_same(self):
        body = {"messages": HI, "max_tokens": 30, "seed": 5, "n": 2, "logprobs": True, "top_logprobs": 1}
        whole = self.server.post("/v1/chat/completions", body)
        events = self.server.events("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"]["completion_tokens"], whole["usage"]["completion_tokens"])
        self.assertTrue(all("usage" not in e for e in events[:-1]))
        self.assertEqual(len({e["id"] for e in events}), 1)
        for choice in whole["choices"]:
            mine = [e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == choice["index"]]
            self.assertEqual([m["delta"].get("role") for m in mine].count("assistant"), 1)
            self.assertEqual(mine[0]["delta"], {"role": "assistant", "content": ""})
            self.assertEqual("".join(m["delta"].get("content", "") for m in mine), choice["message"]["content"])
            self.assertEqual([m["finish_reason"] for m in mine if m["finish_reason"]], [choice["finish_reason"]])
            tokens = [t for m in mine if m["logprobs"] for t in m["logprobs"]["content"]]
            self.assertEqual(tokens, choice["logprobs"]["content"])
        self.assertNotEqual(whole["choices"][0]["message"], whole["choices"][1]["message"])

    def test_a_stream_is_framed_as_clients_parse_it(self):
        status, headers, text = self.chat(stream=True)
        self.assertEqual((status, headers["content-type"], headers["cache-control"]), (200, "text/event-stream; charset=utf-8", "no-cache"))
        self.assertTrue(text.endswith("data: [DONE]\n\n"))
        for event in text.split("\n\n")[:-1]:
            self.assertTrue(event.startswith("data: ") and "\n" not in event, event)

    def test_a_stop_string_ends_the_answer_and_is_left_out(self):
        full = self.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 20, "temperature": 0})["choices"][0]["text"]
        stop = full[3:5]
        for stream in (False, True):
            body = {"prompt": "hi", "max_tokens": 20, "temperature": 0, "stop": stop}
            if stream:
                events = self.server.events("/v1/completions", body)
                text, last = "".join(e["choices"][0]["text"] for e in events), events[-1]["choices"][0]
            else:
                last = self.server.post("/v1/completions", body)["choices"][0]
                text = last["text"]
            self.assertEqual((text, last["finish_reason"], last["stop_reason"]), (full[:full.index(stop)], "stop", stop))

    def test_echo_gives_the_prompt_with_its_log_probabilities(self):
        ids = [5, 700, 800, 900]
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        both = self.server.post("/v1/completions", body)["choices"][0]["logprobs"]
        self.assertEqual([len(both[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")], [5] * 4)
        self.assertIsNone(both["token_logprobs"][0])
        self.assertIsNone(both["top_logprobs"][0])
        for i in range(1, 5):
            self.assertIn(both["tokens"][i], both["top_logprobs"][i])
            self.assertEqual(both["top_logprobs"][i][both["tokens"][i]], both["token_logprobs"][i])
        alone = self.server.post("/v1/completions", {**body, "max_tokens": 0})["choices"][0]["logprobs"]
        self.assertEqual(alone["token_logprobs"], both["token_logprobs"][:4])
        listed = self.server.post("/v1/completions", {"prompt": ids, "max_tokens": 1, "prompt_logprobs": 2})["choices"][0]["prompt_logprobs"]
        self.assertIsNone(listed[0])
        for i in range(1, 4):
            self.assertAlmostEqual(listed[i][str(ids[i])]["logprob"], alone["token_logprobs"][i], places=5)

    def test_prompts_are_answered_in_their_order(self):
        prompts = ["one", "two", "three"]
        many = self.server.post("/v1/completions", {"prompt": prompts, "temperature": 0, "max_tokens": 3, "n": 2})
        self.assertEqual([c["index"] for c in many["choices"]], list(range(6)))
        for i, prompt in enumerate(prompts):
            one = self.server.post("/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 3})["choices"][0]["text"]
            self.assertEqual([many["choices"][2 * i]["text"], many["choices"][2 * i + 1]["text"]], [one, one])

    def test_what_is_changed_or_unused_is_told(self):
        status, headers, _ = self.chat(reasoning_effort="max", max_tokens=5000, stop="\u001c", frobnicate=1, user="me")
        self.assertEqual(status, 200)
        self.assertRegex(headers["x-bise-changed"], r"^reasoning_effort=max->high, max_tokens=5000->20\d\d$")
        self.assertEqual(headers["x-bise-unused"], "frobnicate, user")
        self.assertNotIn("x-bise-changed", self.chat()[1])

    def test_pictures_count_their_tokens(self):
        picture = base64.b64encode((GOLDEN / "own/images/png-rgb8-key.png").read_bytes()).decode()
        content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]
        answer = self.server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], "max_tokens": 2})
        self.assertGreater(answer["usage"]["prompt_tokens_details"]["image_tokens"], 0)

    def test_a_second_request_finds_the_prefix_of_the_first(self):
        messages = [{"role": "user", "content": "wind " * 300}]
        usage = [self.server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})["usage"] for _ in range(2)]
        if usage[1]["prompt_tokens_details"]["cached_tokens"] == 0:
            self.skipTest("the engine of this build keeps no prefixes")
        other = self.server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1, "cache_salt": "mine"})["usage"]
        self.assertEqual(other["prompt_tokens_details"]["cached_tokens"], 0)

    def test_tokens_go_both_ways(self):
        ids = self.server.post("/tokenize", {"prompt": "wind and sea", "add_special_tokens": False})["tokens"]
        self.assertEqual(self.server.post("/detokenize", {"tokens": ids})["prompt"], "wind and sea")
        asked = self.server.post("/tokenize", {"messages": HI})
        self.assertEqual(asked["count"], self.server.post("/v1/chat/completions", {"messages": HI, "max_tokens": 1})["usage"]["prompt_tokens"])
        self.assertEqual(json.loads(self.server.get("/tokenizer_info")[2])["eos_token"], "</s>")


class Bench(WithServer):
    def bench(self, *options):
        done = subprocess.run([BISE, "bench", "serve", "--base-url", self.server.url, "--json", "--ignore-eos", *options],
                              capture_output=True, text=True, timeout=120)
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def test_bench_serve_counts_what_was_asked_for(self):
        for backend in ("openai", "openai-chat"):
            code, report, err = self.bench("--backend", backend, "--num-prompts", "6", "--input-len", "20", "--output-len", "5", "--max-concurrency",
                                           "2", "--save-detailed", "--goodput", "ttft:100000", "--percentile-metrics", "ttft,tpot,itl,e2el")
            self.assertEqual((code, report["completed"], report["failed"], report["model_id"]), (0, 6, 0, "tiny"), err)
            self.assertEqual(report["total_output_tokens"], 30)
            self.assertLessEqual(max(report["queue_times"][:2]), min(report["queue_times"][2:]))
            if backend == "openai":
                self.assertEqual(report["input_lens"], [20] * 6)
            self.assertAlmostEqual(report["output_throughput"] * report["duration"], 30, places=3)
            self.assertEqual(report["request_goodput"], report["request_throughput"])
            for name in ("ttft", "tpot", "itl", "e2el"):
                # Chunks that arrive in one piece have no time between them.
                self.assertGreaterEqual(report[f"p99_{name}_ms"], 0 if name in ("tpot", "itl") else 0.001)
                self.assertGreaterEqual(report[f"p99_{name}_ms"], report[f"median_{name}_ms"])

    def test_bench_serve_tells_failures(self):
        code, report, err = self.bench("--num-prompts", "2", "--num-warmups", "0", "--extra-body", '{"temperature": 9}')
        self.assertEqual((code, report["completed"], report["failed"]), (1, 0, 2))
        self.assertIn("temperature is 9", err)


class Refusals(WithServer):
    def test_bad_bodies(self):
        post = lambda body: self.server.request("POST", "/v1/chat/completions", body)  # noqa: E731
        self.assert_refused(post(b"{"), 400, "request: not JSON at byte 1: expected a key in double quotes", None, "invalid_json")
        self.assert_refused(post(b""), 400, None, None, "invalid_json")
        self.assert_refused(post(b"[]"), 400, "the request is a list; expected a JSON object", None, "invalid_json")
        self.assert_refused(post(b'{"messages":"\xff"}'), 400, "the request is not valid UTF-8", None, "invalid_json")
        self.assert_refused(post(b'{"a":' + b"[" * 100000 + b"}"), 400, None, None, "invalid_json")
        self.assert_refused(post(b"{}"), 400, None, "messages")
        self.assert_refused(self.chat(messages=[]), 400, None, "messages")

    def test_bad_values(self):
        self.assert_refused(self.chat(temperature=3), 400, "temperature is 3; it must be from 0 to 2", "temperature", "invalid_value")
        self.assert_refused(self.chat(n=17), 400, "n is 17; it must be from 1 to 16", "n")
        self.assert_refused(self.chat(best_of=2), 400, "best_of is not supported beyond 1: send n", "best_of", "unsupported_parameter")
        self.assert_refused(self.chat(samplers=["top_k"]), 400,
                            "samplers is not supported: the order is fixed: penalties, temperature, top_k, top_p, min_p", "samplers")
        self.assert_refused(self.chat(tools=[]), 400, "tools is an empty list; leave it out when there are none", "tools")
        self.assert_refused(self.chat(tool_choice="required"), 400, "tool_choice asks for a call, but there are no tools", "tool_choice")
        self.assert_refused(self.chat(tools=[NOW], tool_choice={"type": "function", "function": {"name": "nope"}}), 400,
                            'tool_choice names "nope", which is not among the tools', "tool_choice.function.name")
        self.assert_refused(self.chat(reasoning_effort="huge"), 400, None, "reasoning_effort")
        self.assert_refused(self.chat(chat_template_kwargs={"x": 1}), 400,
                            "chat_template_kwargs.x is not supported; known are reasoning_effort and enable_thinking", "chat_template_kwargs.x")
        self.assert_refused(self.complete(prompt=[1, 999999]), 400, "prompt holds the token id 999999; token ids go from 0 to 1535", "prompt")
        self.assert_refused(self.complete(prompt=[]), 400, "prompt is an empty list", "prompt")
        self.assert_refused(self.complete(max_tokens=0), 400,
                            "max_tokens is 0 and neither echo nor prompt_logprobs is asked for: nothing would be answered", "max_tokens")
        long = "x" * 5000
        error = self.assert_refused(self.chat(response_format={"type": long}), 400, None, "response_format.type")
        self.assertLess(len(error["message"]), 1200)

    def test_a_prompt_beyond_the_context_says_both_numbers(self):
        error = self.assert_refused(self.chat(messages=[{"role": "user", "content": "a b c d e f g h " * 400}]), 400, None, "messages", "context_length_exceeded")
        self.assertRegex(error["message"], r"^This model's maximum context length is 2048 tokens\. However, your prompt has \d+ tokens")
        self.assertEqual(error["limit"], 2048)
        self.assertGreater(error["actual"], 2048)

    def test_models_and_paths_that_are_not_there(self):
        self.assert_refused(self.chat(model="gpt-4"), 404, "the model gpt-4 is not served here; tiny is", "model", "model_not_found")
        self.assert_refused(self.server.get("/v1/models/gpt-4"), 404, "the model gpt-4 is not served here; tiny is", "model")
        self.assertEqual(json.loads(self.server.get("/v1/models/tiny")[2])["id"], "tiny")
        self.assert_refused(self.server.get("/v1/frob"), 404, "there is no /v1/frob here; see docs/API.md")
        answer = self.server.get("/v1/completions")
        self.assert_refused(answer, 405, "GET is not known for /v1/completions; send POST")
        self.assertEqual(answer[1]["allow"], "POST")

    def test_images_come_by_data_url_alone(self):
        def part(url):
            return self.chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
        for url in ("http://127.0.0.1/x.png", "https://example.org/x.png", "file:///etc/passwd", "data:image/png;base64,AAAA", "data:,x", "x"):
            self.assertEqual(part(url)[0], 400, url)

    def test_a_page_of_another_origin_may_not_ask(self):
        for path in ("/v1/models", "/health"):
            self.assert_refused(self.server.get(path, Origin="http://evil.example"), 403,
                                "pages of http://evil.example may not use this server; see --allowed-origins", None, "origin_not_allowed")


class Wire(WithServer):
    """Bytes that no client library would send."""

    def raw(self, data, wait=5.0, shut=False):
        with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            connection.settimeout(wait)
            try:
                connection.sendall(data)
                if shut:
                    connection.shutdown(socket.SHUT_WR)
                out = b""
                while True:
                    piece = connection.recv(65536)
                    if not piece:
                        return out
                    out += piece
            except (socket.timeout, ConnectionError):
                return out if "out" in locals() else b""

    def status(self, data, **options):
        return self.raw(data, **options).split(b"\r\n")[0]

    def test_smuggling_is_refused_and_the_connection_closed(self):
        head = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\n"
        for lengths in (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
                        b"Content-Length: 3\r\nContent-Length: 4\r\n", b"Content-Length: 3\r\nContent-Length: 3\r\n"):
            answer = self.raw(head + lengths + b"\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        self.assertTrue(self.status(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n").startswith(b"HTTP/1.1 501"))

    def test_requests_behind_each_other_are_answered_in_order(self):
        one = b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n"
        last = b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        answer = self.raw(one + one + last)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 3)
        self.assertIn(b'"status"', answer[answer.rindex(b"\r\n\r\n"):])

    def test_large_headers_and_bodies_are_refused_without_reading_them(self):
        self.assertTrue(self.status(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 70000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431"))
        answer = self.raw(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 104857600\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413"), answer)
        self.assertIn(b"the body is larger than 67108864 bytes", answer)

    def test_slow_writers_are_told_and_idle_ones_closed(self):
        began = time.monotonic()
        self.assertTrue(self.status(b"GET /hea").startswith(b"HTTP/1.1 408"))
        self.assertTrue(self.status(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{").startswith(b"HTTP/1.1 408"))
        self.assertEqual(self.raw(b"", wait=8), b"")
        self.assertLess(time.monotonic() - began, 12)

    def test_expect_continue_is_answered(self):
        body = json.dumps({"prompt": "hi"}).encode()
        answer = self.raw(b"POST /tokenize HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertTrue(answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), answer)

    def test_http_1_0_gets_a_stream_until_the_end_of_the_connection(self):
        body = json.dumps({"prompt": "hi", "stream": True, "max_tokens": 3}).encode()
        answer = self.raw(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertNotIn(b"chunked", answer.split(b"\r\n\r\n")[0].lower())
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"))

    def test_many_idle_connections_do_not_keep_others_waiting(self):
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(500)]
        began = time.monotonic()
        self.assertEqual(self.chat()[0], 200)
        self.assertLess(time.monotonic() - began, 20)
        for connection in idle:
            connection.close()

    def test_random_bytes_never_hurt(self):
        import random
        draw = random.Random(1)
        for _ in range(60):
            data = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 300)))
            self.raw(data, wait=0.05)
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_a_client_that_goes_ends_its_request(self):
        body = json.dumps({"prompt": "hi", "max_tokens": 1900, "ignore_eos": True, "stream": True}).encode()
        connection = socket.create_connection(("127.0.0.1", self.server.port))
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        connection.recv(200)
        ended = self.aborted()
        connection.close()
        deadline = time.monotonic() + 60  # the engine lets go of it a step or two after the client is missed
        while self.aborted() == ended or json.loads(self.server.get("/health")[2])["running"] > 0:
            self.assertLess(time.monotonic(), deadline, "the request was not ended")
            time.sleep(0.02)

    def aborted(self):
        """Requests that ended as aborted, by the metrics."""
        counts = re.findall(r'finished_reason="abort"\S* (\S+)', self.server.get("/metrics")[2])
        return sum(map(float, counts))

    def test_a_running_request_is_cancelled_by_its_id(self):
        events = []
        body = {"prompt": "hi", "max_tokens": 1900, "ignore_eos": True, "request_id": "mine"}
        thread = threading.Thread(target=lambda: events.extend(self.server.events("/v1/completions", body)))
        thread.start()
        for _ in range(500):
            status = self.server.request("POST", "/v1/requests/cmpl-mine/cancel", b"")[0]
            if status == 200:
                break
            time.sleep(0.01)
        thread.join(30)
        self.assertEqual(status, 200)
        self.assertEqual(events[-1]["choices"][0]["finish_reason"], "abort")
        self.assert_refused(self.server.request("POST", "/v1/requests/mine/cancel", b""), 404, "no request with the id mine is running")


class Operation(Case):
    def test_keys_open_every_route_but_health(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("# ours\nsecret-one alice\nsecret-two\n")
            keys.flush()
            with Server(BISE, MODEL, *OPTIONS, "--api-key-file", keys.name) as server:
                for path in ("/v1/models", "/metrics", "/version", "/tokenizer_info", "/nothing"):
                    self.assert_refused(server.get(path), 401, "an API key is needed: send the header Authorization: Bearer KEY", None, "invalid_api_key")
                for path in ("/health", "/ready"):
                    self.assertEqual(server.get(path)[0], 200)
                self.assert_refused(server.get("/v1/models", Authorization="Bearer secret-"), 401, "the API key is not one of this server's")
                for headers in ({"Authorization": "Bearer secret-one"}, {"Authorization": "bearer secret-two"}, {"x-api-key": "secret-one"}):
                    self.assertEqual(server.get("/v1/models", **headers)[0], 200)
                big = server.request("POST", "/v1/completions", b"x" * 1000)
                self.assertEqual(big[0], 401)
                self.assertNotIn("secret", server.text())

    def test_an_open_address_needs_a_key_or_the_word_insecure(self):
        done = subprocess.run([BISE, "serve", MODEL, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("error: --host 0.0.0.0 can be reached by others", done.stderr)

    def test_origins_are_allowed_by_name(self):
        with Server(BISE, MODEL, *OPTIONS, "--allowed-origins", '["https://ours.example"]') as server:
            status, headers, _ = server.get("/v1/models", Origin="https://ours.example")
            self.assertEqual((status, headers["access-control-allow-origin"]), (200, "https://ours.example"))
            self.assertEqual(server.request("OPTIONS", "/v1/chat/completions", headers={"Origin": "https://ours.example"})[0], 204)
            self.assertEqual(server.get("/v1/models", Origin="https://evil.example")[0], 403)

    def test_files_are_read_below_the_allowed_folder_only(self):
        folder = GOLDEN / "own/images"
        with Server(BISE, MODEL, *OPTIONS, "--allowed-local-media-path", folder) as server:
            def ask(path):
                content = [{"type": "image_url", "image_url": {"url": f"file://{path}"}}]
                return server.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": content}], "max_tokens": 1})
            self.assertEqual(ask(folder / "png-rgb8-key.png")[0], 200)
            for path in ("/etc/passwd", folder / "../README.md", folder, "/dev/zero", folder / "missing.png"):
                answer = ask(path)
                self.assertEqual(answer[0], 400)
                self.assertIn("there is no such file in the folder of allowed images", answer[2])

    def test_it_says_in_five_lines_what_it_serves(self):
        with Server(BISE, MODEL, *OPTIONS) as server:
            lines = server.text().splitlines()
            self.assertEqual(len(lines), 5, lines)
            for line, words in zip(lines, (("serves tiny", "mistral v15"), ("http://127.0.0.1:", "no key"), ("weights:", "loading"),
                                           ("KV cache:", "16384 tokens", "context 2048"), ("structured output:",))):
                for word in words:
                    self.assertIn(word, line)

    def test_the_log_has_one_line_of_json_for_each_request(self):
        with Server(BISE, MODEL, *OPTIONS) as server:
            server.get("/version", **{"X-Request-Id": "abc-1"})
            server.request("POST", "/v1/chat/completions", {"messages": HI, "max_tokens": 1})
            deadline = time.monotonic() + 5
            while len(server.access_log()) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            first, second = server.access_log()
            self.assertEqual((first["request_id"], first["status"], first["path"]), ("abc-1", 200, "/version"))
            self.assertEqual((second["method"], second["path"]), ("POST", "/v1/chat/completions"))
            self.assertNotIn("hi", json.dumps(second))

    def test_a_full_queue_is_told_with_when_to_come_again(self):
        with Server(BISE, MODEL, *OPTIONS, "--max-num-seqs", "1", "--max-waiting", "1") as server:
            answers = []
            body = {"prompt": "hi", "max_tokens": 400, "ignore_eos": True}
            threads = [threading.Thread(target=lambda: answers.append(server.request("POST", "/v1/completions", body))) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual({a[0] for a in answers}, {200, 429})
            refused = next(a for a in answers if a[0] == 429)
            self.assertEqual(refused[1]["retry-after"], "1")
            self.assertEqual(json.loads(refused[2])["error"]["code"], "rate_limit_exceeded")

    def test_sigterm_lets_answers_end_and_takes_no_new_ones(self):
        with Server(BISE, MODEL, *OPTIONS) as server:
            events = []
            body = {"prompt": "hi", "max_tokens": 1500, "ignore_eos": True}
            thread = threading.Thread(target=lambda: events.extend(server.events("/v1/completions", body)))
            thread.start()
            deadline = time.monotonic() + 20
            while json.loads(server.get("/health")[2])["running"] == 0:
                self.assertLess(time.monotonic(), deadline)
            server.process.send_signal(signal.SIGTERM)
            thread.join(60)
            self.assertEqual(events[-1]["choices"][0]["finish_reason"], "length")
            self.assertEqual(server.process.wait(30), 0)
            self.assertRaises(ConnectionError, server.get, "/health")

    def test_answers_that_take_too_long_are_cut_off_with_an_error(self):
        with Server(BISE, MODEL, *OPTIONS, "--shutdown-timeout", "0") as server:
            body = {"prompt": "hi", "max_tokens": 1900, "ignore_eos": True, "n": 8, "stream": True}
            connection = server.connect()
            connection.request("POST", "/v1/completions", json.dumps(body))
            answer = connection.getresponse()
            answer.read(100)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(30), 0)
            connection.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
