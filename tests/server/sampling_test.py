#!/usr/bin/env python3
"""Fields of `bise serve` that say what may be drawn, what ends an answer and what is told of each token."""
import json
import re

from serve_case import HI, WithServer, main


class Drawing(WithServer):
    def greedy(self, **body):
        return self.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 20, "temperature": 0, "return_token_ids": True, **body})["choices"][0]

    def test_bad_words_do_not_come_and_the_rest_may(self):
        free = self.greedy()
        ids = free["token_ids"]
        # The tiny model writes bytes that are no text; a word has to lead back to its tokens.
        is_word = lambda part: self.tokens(self.text(part).lstrip(" ")) == part or self.tokens(" " + self.text(part).lstrip(" ")) == part  # noqa: E731
        word = next(i for i in ids if is_word([i]))
        without = self.greedy(bad_words=[self.text([word])])["token_ids"]
        self.assertNotIn(word, without)
        self.assertEqual(without[:ids.index(word)], ids[:ids.index(word)])
        # A word of several tokens: each may come, but not all of them in a row.
        for seed in range(50):
            ids = self.greedy(temperature=1.5, seed=seed)["token_ids"]
            pairs = [(a, b) for a, b in zip(ids, ids[1:]) if is_word([a, b])]
            if pairs:
                break
        a, b = pairs[0]
        answer = self.greedy(temperature=1.5, seed=seed, bad_words=["nothing of this", self.text([a, b])])["token_ids"]
        at = list(zip(ids, ids[1:])).index((a, b))
        self.assertEqual(answer[:at + 1], ids[:at + 1])
        self.assertNotIn((a, b), list(zip(answer, answer[1:])))

    def text(self, ids):
        return self.server.post("/detokenize", {"tokens": ids})["prompt"]

    def tokens(self, text):
        return self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

    def test_bad_words_that_leave_nothing_are_an_error_of_the_request(self):
        if not json.loads(self.server.get("/v1/models")[2])["data"][0]["meta"]["structured_output"]:
            self.skipTest("structured output is not in this build")
        body = {"prompt": "q", "guided_regex": "q", "bad_words": ["q"], "max_tokens": 3}
        self.assert_refused(self.server.request("POST", "/v1/completions", body), 400,
                            "bad_words forbid all that the structure asked for allows", "bad_words", "invalid_structure")

    def test_the_log_probabilities_of_chosen_ids_are_listed(self):
        plain = self.greedy(logprobs=3, max_tokens=4)["logprobs"]
        with_ids = self.greedy(logprobs=3, max_tokens=4, logprob_token_ids=[7, 8], return_tokens_as_token_ids=True)["logprobs"]
        for i in range(4):
            top = with_ids["top_logprobs"][i]
            self.assertIn("token_id:7", top)
            self.assertIn("token_id:8", top)
            self.assertEqual(list(top.values())[:3], list(plain["top_logprobs"][i].values())[:3])
            self.assertLessEqual(len(top), 5)
            self.assertLess(top["token_id:7"], 0)
        chat = self.server.post("/v1/chat/completions", {"messages": HI, "max_tokens": 2, "logprobs": True, "logprob_token_ids": [9]})
        for token in chat["choices"][0]["logprobs"]["content"]:
            self.assertEqual(len(token["top_logprobs"]), 1)
        # All of them add up to one.
        whole = self.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1, "logprobs": 0, "allowed_token_ids": [5],
                                                     "logprob_token_ids": [5]})["choices"][0]["logprobs"]
        self.assertEqual(list(whole["top_logprobs"][0].values()), whole["token_logprobs"])
        self.assert_refused(self.complete(logprob_token_ids=[1]), 400, "logprob_token_ids needs logprobs", "logprob_token_ids")
        self.assert_refused(self.complete(logprobs=1, logprob_token_ids=[99999]), 400, None, "logprob_token_ids")


class Endings(WithServer):
    def both(self, **body):
        """Text, finish and stop reason; the same streamed and whole."""
        body = {"prompt": "hi", "max_tokens": 20, "temperature": 0, **body}
        whole = self.server.post("/v1/completions", body)["choices"][0]
        events = self.server.events("/v1/completions", body)
        last = events[-1]["choices"][0]
        answer = (whole["text"], whole["finish_reason"], whole["stop_reason"])
        self.assertEqual(("".join(e["choices"][0]["text"] for e in events), last["finish_reason"], last["stop_reason"]), answer)
        return answer

    def test_a_stop_regex_ends_the_answer_where_it_is_first_complete(self):
        full = self.both()[0]
        # Any two characters of a kind that the answer has, behind the first five.
        pattern = re.escape(full[5]).replace("\\ ", " ") + "."
        first = re.search(pattern, full, re.S)
        self.assertIsNotNone(first)
        regex = "(?s)" + pattern
        self.assertEqual(self.both(stop_regex=regex), (full[:first.start()], "stop", regex))
        self.assertEqual(self.both(stop_regex=["never{20}", regex], include_stop_str_in_output=True), (full[:first.end()], "stop", regex))
        self.assertEqual(self.both(stop_regex="neverever[0-9]+")[:2], (full, "length"))

    def test_regexes_that_cannot_be_used_say_why(self):
        for regex, why in (("a*", "it matches the empty text, which is everywhere"), ("(", "a ( without its )"), ("[a", "a [ without its ]"),
                           ("a$", "anchors (^ $ \\b) are not known to it"), ("(?=a)b", "look-around, named groups and flags inside are not known to it"),
                           ("(a)\\1", "\\1 is not known to it"), ("((a{1000}){1000}){1000}", "it is too large (repetitions multiply)"),
                           ("(" * 60 + "a" + ")" * 60, "groups are nested more than 50 deep")):
            error = self.assert_refused(self.complete(stop_regex=regex), 400, None, "stop_regex")
            self.assertTrue(error["message"].endswith("cannot be used: " + why), error["message"])
        self.assert_refused(self.complete(stop_regex="x" * 1001), 400, None, "stop_regex")
        self.assert_refused(self.complete(stop_regex=["x"] * 17), 400, None, "stop_regex")

    def test_thinking_ends_when_its_budget_is_used_up(self):
        begin, end = 34, 35
        for budget in (0, 1, 7):
            body = {"messages": HI, "reasoning_effort": "high", "max_tokens": 60, "seed": 3, "return_token_ids": True,
                    "logit_bias": {str(begin): 100, "2": -100}, "thinking_token_budget": budget}
            ids = self.server.post("/v1/chat/completions", body)["choices"][0]["token_ids"]
            self.assertIn(begin, ids)
            ended = ids.index(end) - ids.index(begin) - 1
            self.assertIn(ended, range(budget, budget + 4))  # a character may end first
        free = self.server.post("/v1/chat/completions", {**body, "thinking_token_budget": -1, "logit_bias": {str(begin): 100, str(end): -100, "2": -100}})
        self.assertNotIn(end, free["choices"][0]["token_ids"])
        told = self.chat(reasoning={"effort": "high", "max_tokens": 5, "exclude": True})
        self.assertEqual((told[0], told[1]["x-bise-unused"]), (200, "reasoning.exclude"))
        self.assert_refused(self.chat(thinking_token_budget=-2), 400, "thinking_token_budget is -2; it must be 0 or more, or -1 for no limit",
                            "thinking_token_budget")


if __name__ == "__main__":
    main()
