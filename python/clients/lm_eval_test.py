#!/usr/bin/env python3
"""lm_eval, the evaluation harness, against `bise serve` with SmolLM2: log-likelihoods of choices and of
whole texts through local-completions, generation through it and through local-chat-completions.

  lm_eval_test.py BISE LM_EVAL MODEL     LM_EVAL: the command; MODEL: one that knows some facts (smollm2)

Its tasks are made here, because those it brings load their questions from the network.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from serve_process import Server  # noqa: E402

BISE, LM_EVAL, MODEL = sys.argv[1:4]
FACTS = [("The capital of France is", ["Paris", "Tokyo", "Berlin", "Madrid"], 0), ("The opposite of hot is", ["warm", "cold", "blue", "fast"], 1),
         ("Two plus two equals", ["seven", "nine", "four", "one"], 2), ("A baby dog is called a", ["kitten", "calf", "foal", "puppy"], 3),
         ("The sun rises in the", ["east", "sofa", "spoon", "river"], 0), ("Snow is", ["black", "white", "loud", "spicy"], 1),
         ("Fish live in the", ["sky", "oven", "water", "desert"], 2), ("The first month of the year is", ["June", "May", "July", "January"], 3)]
COUNTING = [("1, 2, 3, 4,", "5"), ("Monday, Tuesday, Wednesday,", "Thursday"), ("A, B, C, D,", "E"), ("January, February, March,", "April")]
TEXTS = ["The wind blows from the sea over the land.", "Water boils at one hundred degrees.\n\nIce melts at zero."]
CHOICE = """
task: bise_choice
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc}]
"""
COUNT = """
task: bise_count
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/count.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: " {{answer}}"
generation_kwargs: {until: [",", "\\n", "."], max_gen_toks: 8, temperature: 0}
metric_list: [{metric: exact_match}]
"""
ROLLING = """
task: bise_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/texts.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""


def write_tasks(folder):
    rows = {"choice": [{"text": t, "choices": c, "label": a} for t, c, a in FACTS], "count": [{"text": t, "answer": a} for t, a in COUNTING],
            "texts": [{"text": t} for t in TEXTS]}
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, task in (("choice", CHOICE), ("count", COUNT), ("rolling", ROLLING)):
        (folder / f"bise_{name}.yaml").write_text(task.replace("FOLDER", str(folder)))


class LmEval(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(BISE, MODEL, "--served-model-name", "model").__enter__()
        cls.holder = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.holder.name)
        write_tasks(cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        cls.holder.cleanup()

    def evaluate(self, kind, tasks, endpoint, *more, **model_args):
        """-> results by task, samples by task"""
        out = self.folder / f"out-{len(list(self.folder.iterdir()))}"
        arguments = {"model": "model", "base_url": self.server.url + endpoint, "max_retries": 1, **model_args}
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(self.folder / "hf"), "OPENAI_API_KEY": ""}
        done = subprocess.run([LM_EVAL, "--model", kind, "--model_args", ",".join(f"{k}={v}" for k, v in arguments.items()), "--tasks", ",".join(tasks),
                               "--include_path", str(self.folder), "--output_path", str(out), "--log_samples", *more],
                              capture_output=True, text=True, env=environment, timeout=900)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        results = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
        samples = {}
        for task in tasks:
            lines = next(out.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()
            samples[task] = sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])
        return results, samples

    def log_likelihood(self, context, continuation):
        """The same by another way: vLLM's prompt_logprobs."""
        encode = lambda text: self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]  # noqa: E731
        ids, start = encode(context + continuation), len(encode(context))
        answer = self.server.post("/v1/completions", {"prompt": ids, "max_tokens": 0, "prompt_logprobs": 0})
        listed = answer["choices"][0]["prompt_logprobs"]
        return sum(listed[i][str(ids[i])]["logprob"] for i in range(start, len(ids)))

    def test_choices_are_ranked_by_their_log_likelihoods(self):
        results, samples = self.evaluate("local-completions", ["bise_choice"], "/completions", tokenizer_backend="remote")
        self.assertGreaterEqual(results["bise_choice"]["acc,none"], 0.5)  # chance: 0.25
        for sample, (text, choices, _) in zip(samples["bise_choice"], FACTS):
            for choice, response in zip(choices, sample["filtered_resps"]):
                self.assertAlmostEqual(float(response[0]), self.log_likelihood(text, " " + choice), places=3)
        # Several prompts in a request and several requests at once give the same.
        _, batched = self.evaluate("local-completions", ["bise_choice"], "/completions", "--batch_size", "4", tokenizer_backend="remote", num_concurrent=4)
        for one, other in zip(samples["bise_choice"], batched["bise_choice"]):
            for a, b in zip(one["filtered_resps"], other["filtered_resps"]):
                self.assertAlmostEqual(float(a[0]), float(b[0]), places=3)
                self.assertEqual(a[1], b[1])

    def test_texts_have_their_perplexity(self):
        results, samples = self.evaluate("local-completions", ["bise_rolling"], "/completions", tokenizer_backend="remote")
        self.assertLess(results["bise_rolling"]["bits_per_byte,none"], 2.0)
        info = json.loads(self.server.get("/tokenizer_info")[2])
        start = info["bos_token"] or info["eos_token"]  # as lm_eval chooses
        for sample, text in zip(samples["bise_rolling"], TEXTS):
            first = self.server.post("/tokenize", {"prompt": start, "add_special_tokens": False})["tokens"]
            self.assertEqual(len(first), 1)
            ids = first + self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
            listed = self.server.post("/v1/completions", {"prompt": ids, "max_tokens": 0, "prompt_logprobs": 0})["choices"][0]["prompt_logprobs"]
            wanted = sum(listed[i][str(ids[i])]["logprob"] for i in range(1, len(ids)))
            self.assertAlmostEqual(float(sample["filtered_resps"][0]), wanted, places=2)

    def test_generations_end_at_their_stops(self):
        results, samples = self.evaluate("local-completions", ["bise_count"], "/completions", tokenizer_backend="remote")
        self.assertGreaterEqual(results["bise_count"]["exact_match,none"], 0.5)
        for sample in samples["bise_count"]:
            self.assertNotRegex(sample["resps"][0][0], "[,.\n]")

    def test_chats_are_answered(self):
        _, samples = self.evaluate("local-chat-completions", ["bise_count"], "/chat/completions", "--apply_chat_template", eos_string="<|im_end|>")
        self.assertEqual(len(samples["bise_count"]), len(COUNTING))
        for sample in samples["bise_count"]:
            self.assertNotRegex(sample["resps"][0][0], "[,.\n]")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
