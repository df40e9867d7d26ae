#!/usr/bin/env python3
"""mistral-vibe, the coding agent, without a terminal against `bise serve`.

  vibe_test.py BISE VIBE MODEL     VIBE: the command; MODEL: tests/golden/model/ckpt/medium/hf-bf16

The tiny model's words mean nothing; what is tested is that the agent's own prompt, tools and history are
understood, its streams are read to their end, and errors reach it as what they are.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from serve_process import Server  # noqa: E402

BISE, VIBE, MODEL = sys.argv[1:4]
CONFIG = """
active_model = "local"
enable_telemetry = false
enable_update_checks = false
enable_auto_update = false
enable_connectors = false

[[providers]]
name = "bise"
api_base = "URL"
api_key_env_var = "BISE_TEST_KEY"
backend = "generic"

[[models]]
name = "MODEL"
provider = "bise"
alias = "local"
temperature = 0.2
thinking = "THINKING"
"""


class Vibe(unittest.TestCase):
    def run_vibe(self, server, model="tiny", thinking="off", key="a-secret-key", more=()):
        with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as work:
            config = CONFIG.replace("URL", server.url).replace("MODEL", model).replace("THINKING", thinking)
            pathlib.Path(home, "config.toml").write_text(config)
            environment = {**os.environ, "VIBE_HOME": home, "HOME": home, "BISE_TEST_KEY": key}
            return subprocess.run([VIBE, "-p", "say hi", "--output", "json", "--max-turns", "1", "--trust", "--workdir", work, *more],
                                  capture_output=True, text=True, env=environment, timeout=600)

    def requests(self, server):
        return [line for line in server.access_log() if line["path"] == "/v1/chat/completions"]

    def serve(self, context):
        with tempfile.NamedTemporaryFile("w", suffix=".keys", delete=False) as keys:
            keys.write("a-secret-key vibe\n")
        self.addCleanup(os.unlink, keys.name)
        return Server(BISE, MODEL, "--served-model-name", "tiny", "--context", context, "--kv-cache-tokens", 2 * context, "--threads", "2",
                      "--api-key-file", keys.name)

    def prompt_tokens(self):
        """Of the agent's own prompt and tools: a server that is too small for them says so, and the agent shows it."""
        with self.serve(2048) as server:
            told = self.run_vibe(server)
            self.assertEqual(self.requests(server)[-1]["status"], 400)
        self.assertNotEqual(told.returncode, 0)
        found = re.search(r"maximum context length is 2048 tokens\. However, your prompt has (\d+) tokens", told.stdout + told.stderr)
        self.assertIsNotNone(found, told.stdout + told.stderr)
        return int(found.group(1))

    def test_an_answer_is_read_to_its_end(self):
        # The tiny model never ends by itself: the context leaves room for some tokens.
        with self.serve(self.prompt_tokens() + 300) as server:
            for thinking in ("off", "high", "max"):
                before = len(self.requests(server))
                done = self.run_vibe(server, thinking=thinking)
                asked = self.requests(server)[before:]
                self.assertTrue(asked, done.stderr[-2000:])
                self.assertEqual({line["status"] for line in asked}, {200}, done.stderr[-2000:])
                messages = json.loads(done.stdout)
                self.assertEqual(messages[-1]["role"], "assistant")

    def test_a_wrong_key_is_told(self):
        with self.serve(2048) as server:
            refused = self.run_vibe(server, key="another-key")
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("Invalid API key", refused.stdout + refused.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
