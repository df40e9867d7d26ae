#!/usr/bin/env python3
"""Answers and refusals of `bise serve` over real sockets, with the tiny golden model."""
import base64
import json
import subprocess

from serve_case import BISE, GOLDEN, HI, NOW, WithServer, main


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
        info = json.loads(self.server.get("/tokenizer_info")[2])
        self.assertEqual((info["bos_token"], info["eos_token"]), ("<s>", "</s>"))
        encode = lambda text: self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]  # noqa: E731
        self.assertEqual((encode("<s>"), encode("</s>")), ([1], [2]))
        self.assertNotIn(2, encode("x</s>"))


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


if __name__ == "__main__":
    main()
