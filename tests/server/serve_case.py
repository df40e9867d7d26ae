"""What the tests of `bise serve` share: the tiny golden model, a server for a class of tests, refusals.

Each test file is run as  FILE BISE GOLDEN     BISE: the binary, GOLDEN: the folder tests/golden
"""
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
from serve_process import Server  # noqa: E402

BISE, GOLDEN = sys.argv[1], pathlib.Path(sys.argv[2])
MODEL = GOLDEN / "model/ckpt/medium/hf-bf16"
OPTIONS = ("--served-model-name", "tiny", "--context", "2048", "--kv-cache-tokens", "16384", "--threads", "1",
           "--header-timeout", "3", "--body-timeout", "3", "--idle-timeout", "3")
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
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(BISE, MODEL, *OPTIONS, *cls.options).__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def chat(self, **body):
        return self.server.request("POST", "/v1/chat/completions", {"messages": HI, "max_tokens": 4, **body})

    def complete(self, **body):
        return self.server.request("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 4, **body})

    @classmethod
    def skip_without_structures(cls):
        """In setUpClass, behind its own."""
        models = json.loads(cls.server.get("/v1/models")[2])
        if not models["data"][0]["meta"]["structured_output"]:
            cls.tearDownClass()
            raise unittest.SkipTest("structured output is not in this build")


def main():
    unittest.main("__main__", argv=sys.argv[:1] + sys.argv[3:])
