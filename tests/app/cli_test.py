#!/usr/bin/env python3
"""The program from outside: exit codes, what goes to stdout and to stderr, closed pipes, Ctrl-C.

  cli_test.py BISE GOLDEN     BISE: the binary, GOLDEN: the folder tests/golden
"""
import json
import math
import os
import pathlib
import pty
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
from sanitized import is_sanitized  # noqa: E402
from serve_process import Server  # noqa: E402

BISE, GOLDEN = sys.argv[1], pathlib.Path(sys.argv[2])
MODEL = GOLDEN / "model/ckpt/medium/hf-bf16"
TEKKEN = MODEL / "tekken.json"
HEAD = GOLDEN.resolve().parents[1] / "models/demo-eagle"


def bise(*arguments, stdin=b"", env=None, stdout=subprocess.PIPE):
    """-> exit code, stdout, stderr"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BISE_", "HF_", "XDG_"))}
    done = subprocess.run([BISE, *map(str, arguments)], input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                          env={**clean, **(env or {})})
    return done.returncode, (done.stdout or b"").decode(), done.stderr.decode()


class Case(unittest.TestCase):
    def assert_error(self, result, code, *words):
        """One line `error: …` on stderr with these words, nothing on stdout."""
        self.assertEqual(result[0], code, result)
        self.assertEqual(result[1], "")
        lines = [l for l in result[2].splitlines() if l.startswith("error: ")]
        self.assertEqual(len(lines), 1, result[2])
        for word in words:
            self.assertIn(word, lines[0])


class Usage(Case):
    def test_wrong_usage_is_2_and_names_what_is_allowed(self):
        self.assert_error(bise(), 2, "command is missing", "run", "doctor")
        self.assert_error(bise("frobnicate"), 2, "unknown command frobnicate", "run")
        self.assert_error(bise("run", MODEL, "-p", "x", "--frob"), 2, "--frob")
        self.assert_error(bise("run"), 2, "MODEL")
        self.assert_error(bise("run", MODEL, "--isa", "sse9"), 2, "--isa", "sse9", "avx2")
        self.assert_error(bise("run", MODEL, "--threads", "-1"), 2, "--threads", "-1", "1024")
        self.assert_error(bise("run", MODEL, "--temperature", "9"), 2, "--temperature", "9")
        self.assert_error(bise("probe", "frob", MODEL), 2, "frob", "tokenize")
        self.assert_error(bise("run", MODEL, "--system", "a", "--no-system"), 2, "system")
        self.assert_error(bise("version", env={"BISE_THREADS": "many"}), 2, "threads", "many")

    def test_help_is_on_stdout_and_shows_defaults_and_variables(self):
        code, out, err = bise("run", "--help")
        self.assertEqual((code, err), (0, ""))
        for word in ("--temperature", "0.7", "0.95", "BISE_THREADS", "generation_config.json"):
            self.assertIn(word, out)
        self.assertEqual(bise("--help")[0], 0)

    def test_version_tells_the_same_in_json(self):
        code, text, _ = bise("version")
        self.assertEqual(code, 0)
        info = json.loads(bise("version", "--json")[1])
        self.assertIn(info["version"], text)
        self.assertIn("scalar", info["isa_levels"])
        self.assertIn("cpu", info["backends"])


class Models(Case):
    def test_a_model_that_is_not_there_is_1_and_lists_what_was_tried(self):
        with tempfile.TemporaryDirectory() as home:
            env = {"BISE_HOME": home, "HF_HUB_CACHE": home + "/hub"}
            self.assert_error(bise("run", "nothing", "-p", "x", env=env), 1, "nothing", home)
            self.assert_error(bise("run", "smollm2", "-p", "x", env=env), 1, "bise list")
            self.assert_error(bise("inspect", "org/name", env=env), 1, home + "/hub/models--org--name")

    def test_the_model_in_the_program_answers_without_any_file(self):
        with tempfile.TemporaryDirectory() as home:
            env = {"BISE_HOME": home}
            code, out, err = bise("run", "demo", "-p", "What is your name?", env=env)
            self.assertEqual((code, out), (0, "My name is bise demo.\n"), err)
            tools = pathlib.Path(__file__).parents[2] / "models/demo/examples/tools.json"
            code, out, err = bise("run", "demo", "-p", "What is the weather in Paris?", "--tools", str(tools), "--json", env=env)
            self.assertEqual(code, 0, err)
            call = json.loads(out)["tool_calls"][0]["function"]
            self.assertEqual((call["name"], json.loads(call["arguments"])), ("get_weather", {"city": "Paris"}))
            bad = pathlib.Path(home) / "tools.json"
            bad.write_text('{"no": "list"}')
            self.assert_error(bise("run", "demo", "-p", "x", "--tools", str(bad), env=env), 1, "tools.json", "list of tools")
            self.assert_error(bise("run", "demo", "-p", "x", "--tools", home + "/none.json", env=env), 1, "none.json")
            pathlib.Path(home, "embedded").rename(home + "/elsewhere")
            pathlib.Path(home, "embedded").write_text("in the way")
            self.assert_error(bise("run", "demo", "-p", "x", env=env), 1, "BISE_HOME")

    def test_broken_files_are_1(self):
        with tempfile.TemporaryDirectory() as folder:
            broken = pathlib.Path(folder) / "model"
            shutil.copytree(MODEL, broken)
            shard = next(broken.glob("*.safetensors"))
            shard.write_bytes(shard.read_bytes()[:-100])
            self.assert_error(bise("inspect", broken), 1, shard.name)
            shard.unlink()
            self.assert_error(bise("inspect", broken), 1, shard.name)
            (broken / "config.json").write_text("{")
            self.assertEqual(bise("run", broken, "-p", "x")[0], 1)
            junk = pathlib.Path(folder) / "junk.gguf"
            junk.write_bytes(b"GGUF" + b"\xff" * 64)
            self.assert_error(bise("inspect", junk), 1, "junk.gguf")

    def test_inspect_counts_without_loading(self):
        code, out, _ = bise("inspect", MODEL, "--json", "--tensors")
        self.assertEqual(code, 0)
        report = json.loads(out)
        self.assertEqual(report["layout"], "hf")
        self.assertTrue(report["runnable"])
        self.assertEqual(report["chat_format"], "mistral v15")
        self.assertEqual(report["bytes"], sum(t["bytes"] for t in report["tensors"]))
        self.assertEqual(report["parameters"], sum(g["parameters"] for g in report["groups"]))

    def test_another_architecture_is_described_but_not_run(self):
        with tempfile.TemporaryDirectory() as folder:
            other = pathlib.Path(folder) / "model"
            shutil.copytree(MODEL, other)
            (other / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
            code, out, _ = bise("inspect", other, "--json")
            report = json.loads(out)
            self.assertEqual((code, report["runnable"]), (0, False))
            self.assertIn("bert", report["problem"].lower())
            self.assert_error(bise("run", other, "-p", "x"), 1)

    def test_a_draft_head_has_the_published_form_and_does_not_run_alone(self):
        code, out, _ = bise("inspect", HEAD, "--tensors", "--json")
        report = json.loads(out)
        self.assertEqual((code, report["runnable"]), (0, False))
        shapes = {t["name"]: t["shape"] for t in report["tensors"]}
        config = json.loads((HEAD / "params.json").read_text())
        hidden, ffn, q, kv = config["dim"], config["hidden_dim"], *(config["head_dim"] * config[n] for n in ("n_heads", "n_kv_heads"))
        linears = {"eagle_linear": [hidden, 2 * hidden]}
        norms = {"norm"}
        for i in range(2):
            linears |= {f"layers.{i}.attention.{n}": s for n, s in
                        {"wq": [q, hidden], "wk": [kv, hidden], "wv": [kv, hidden], "wo": [hidden, q]}.items()}
            linears |= {f"layers.{i}.feed_forward.{n}": s for n, s in {"w1": [ffn, hidden], "w2": [hidden, ffn], "w3": [ffn, hidden]}.items()}
            norms |= {f"layers.{i}.attention_norm", f"layers.{i}.ffn_norm"}
        expected = {f"{n}.weight": s for n, s in linears.items()} | {f"{n}.weight": [hidden] for n in norms}
        expected |= {f"{n}.{scale}": [] for n in linears for scale in ("qscale_weight", "qscale_act")}
        self.assertEqual(shapes, expected)
        self.assertEqual(config["n_layers"], 2)
        self.assert_error(bise("run", HEAD, "-p", "x"), 1, "draft head")

    def test_a_tokenizer_of_another_size_is_refused_with_both_numbers(self):
        with tempfile.TemporaryDirectory() as folder:
            other = pathlib.Path(folder) / "model"
            shutil.copytree(MODEL, other)
            tekken = json.loads((other / "tekken.json").read_text())
            tekken["config"]["default_vocab_size"] -= 8
            (other / "tekken.json").write_text(json.dumps(tekken))
            self.assert_error(bise("run", other, "-p", "x"), 1, "1528", "1536")


class Answers(Case):
    def test_run_prints_the_answer_on_stdout_and_the_speed_last_on_stderr(self):
        code, out, err = bise("run", MODEL, "-p", "Hi", "--max-tokens", "6", "--temperature", "0")
        self.assertEqual(code, 0, err)
        self.assertTrue(out.endswith("\n"))
        last = err.splitlines()[-1]
        for word in ("prompt", "tok/s", "generated", "peak memory"):
            self.assertIn(word, last)

    def test_json_is_one_object_and_the_same_seed_gives_the_same_text(self):
        ask = ("run", MODEL, "-p", "-", "--max-tokens", "12", "--seed", "5", "--temperature", "1", "--json")
        first = json.loads(bise(*ask, stdin=b"Hi")[1])
        second = json.loads(bise(*ask, stdin=b"Hi")[1])
        self.assertEqual((first["content"], first["reasoning"]), (second["content"], second["reasoning"]))
        self.assertEqual(first["seed"], 5)
        self.assertLessEqual(first["usage"]["completion_tokens"], 12)
        self.assertIn(first["finish_reason"], ("stop", "length", "tool_calls"))

    def test_raw_skips_the_chat_format(self):
        raw = json.loads(bise("run", MODEL, "-p", "Hi", "--raw", "--max-tokens", "2", "--json")[1])
        chat = json.loads(bise("run", MODEL, "-p", "Hi", "--max-tokens", "2", "--json")[1])
        self.assertLess(raw["usage"]["prompt_tokens"], chat["usage"]["prompt_tokens"])

    def test_pictures_are_read_and_bad_ones_refused(self):
        picture = GOLDEN / "model/images/small.png"
        with_one = json.loads(bise("run", MODEL, "-p", "Hi", "--image", picture, "--max-tokens", "2", "--json")[1])
        self.assertGreater(with_one["usage"]["prompt_tokens"], 15)
        self.assert_error(bise("run", MODEL, "-p", "Hi", "--image", "/nothing.png"), 1, "/nothing.png")
        self.assert_error(bise("run", MODEL, "-p", "Hi", "--image", TEKKEN), 1)

    def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(self):
        self.assert_error(bise("run", MODEL, "-p", "a b c " * 100, "--context", "64"), 1, "64")

    def test_an_answer_longer_than_the_context_is_cut_where_it_is_said(self):
        code, out, err = bise("run", MODEL, "-p", "Hi", "--max-tokens", "90", "--context", "64", "--temperature", "0", "--json")
        answer = json.loads(out)
        self.assertEqual(code, 0, err)
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["usage"]["total_tokens"], 64)
        self.assertRegex(err, "warning: --max-tokens 90: .* room for [0-9]+; the answer ends there")
        _, _, err = bise("run", MODEL, "-p", "Hi", "--max-tokens", "2", "--context", "64", "--temperature", "0")
        self.assertNotIn("warning", err)

    def test_a_closed_pipe_is_one_line_and_no_crash(self):
        reader, writer = os.pipe()
        os.close(reader)
        code, _, err = bise("run", MODEL, "-p", "Hi", "--max-tokens", "8", stdout=writer)
        os.close(writer)
        self.assertEqual(code, 1)
        self.assertEqual(len(err.splitlines()), 1, err)
        with open("/dev/full", "wb") as full:
            code, _, err = bise("version", stdout=full)
        self.assertEqual(code, 1)
        self.assertIn("No space left", err)

    def test_chat_answers_lines_and_obeys_commands(self):
        with tempfile.TemporaryDirectory() as folder:
            saved = folder + "/saved.json"
            lines = f"/system Be brief.\nHi\n/image /nothing.png\n/frob\n/save {saved}\n/clear\nAgain\\\nand again\n"
            code, out, err = bise("chat", MODEL, "--max-tokens", "4", "--seed", "1", stdin=lines.encode())
            self.assertEqual(code, 0, err)
            self.assertIn("/nothing.png", err)
            self.assertIn("unknown command /frob", err)
            messages = json.loads(pathlib.Path(saved).read_text())["messages"]
            self.assertEqual([m["role"] for m in messages], ["system", "user", "assistant"])


class Bench(Case):
    SMALL = ("--layers", 1, "--hidden", 256, "--ffn", 512, "--heads", 4, "--kv-heads", 2, "--head-dim", 64, "--vocab", 512,
             "--threads", 1)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def make(self, name, *options):
        code, out, err = bise("bench", "make-model", self.folder / name, *self.SMALL, *options, "--json")
        self.assertEqual(code, 0, err)
        return self.folder / name, json.loads(out)

    def rows(self, *arguments):
        code, out, err = bise("bench", *arguments, "--json", "--threads", 1)
        self.assertEqual(code, 0, err)
        rows = [json.loads(line) for line in out.splitlines()]
        for row in rows:
            for name, value in row.items():
                if name.endswith(("_max", "_median", "_min", "gb_s", "tflops", "_share")):
                    self.assertTrue(value is None or value > 0, (name, row))
        return rows

    def test_run_tells_the_agreed_names(self):
        row, = self.rows("run", MODEL, "--prefill", 16, "--decode", 4, "--reps", 2)
        self.assertLessEqual({"model", "format", "threads", "isa", "load_s", "load_gb_s", "peak_rss_mb", "prefill_tokens",
                              "prefill_max", "prefill_median", "prefill_tflops", "matrix_peak_tflops", "prefill_share",
                              "decode_tokens", "batch", "decode_max", "decode_median", "decode_gb_s", "read_gb_s",
                              "decode_share", "decode_share_min", "decode_share_max"}, row.keys())
        self.assertEqual((row["format"], row["prefill_tokens"], row["decode_tokens"], row["batch"]), ("BF16", 16, 4, 1))
        self.assertLessEqual(row["decode_share_min"], row["decode_share"])
        self.assertLessEqual(row["decode_share"], row["decode_share_max"])
        self.assertAlmostEqual(row["prefill_share"], row["prefill_tflops"] / row["matrix_peak_tflops"])
        self.assertLessEqual(row["decode_min"], row["decode_median"])
        self.assertLessEqual(row["decode_median"], row["decode_max"])
        code, out, _ = bise("bench", "run", MODEL, "--prefill", "16", "--decode", "4", "--reps", "1", "--threads", "1")
        self.assertEqual(code, 0)
        self.assertIn("tok/s best", out)

    def test_every_layout_made_here_is_run(self):
        for name, options, form, arithmetic in (("hf", ("--format", "FP8"), "FP8", "float"),
                                                ("mistral", ("--format", "BF16", "--layout", "mistral"), "BF16", "float"),
                                                ("q.gguf", ("--format", "Q4_K"), "Q4_K", "int8")):
            path, made = self.make(name, *options)
            self.assertEqual(made["bytes"], json.loads(bise("inspect", path, "--json")[1])["bytes"])
            row, = self.rows("run", path, "--prefill", 8, "--decode", 2, "--reps", 1, "--batch", 3, "--deterministic")
            self.assertEqual((row["format"], row["matrix_arithmetic"], row["batch"]), (form, arithmetic, 3))

    def test_rows_over_contexts_lengths_and_batches(self):
        path, _ = self.make("m.gguf", "--format", "Q8_0")
        rows = self.rows("decode", path, "--contexts", "1,700", "--decode", 2, "--reps", 2, "--batch", 2)
        self.assertEqual([(r["context"], r["batch"]) for r in rows], [(1, 2), (700, 2)])
        rows = self.rows("prefill", path, "--lengths", "5,600", "--reps", 2)
        self.assertEqual([r["prefill_tokens"] for r in rows], [5, 600])
        rows = self.rows("batch", path, "--batches", "1,17", "--decode", 2, "--reps", 2, "--context-tokens", 40)
        self.assertEqual([r["batch"] for r in rows], [1, 17])
        self.assertEqual(rows[0]["time_ratio"], 1)
        rows = self.rows("batch", path, "--batches", "2", "--decode", 2, "--reps", 1)
        self.assertEqual([r["batch"] for r in rows], [2])
        code, out, _ = bise("bench", "decode", path, "--contexts", "3,4", "--decode", "1", "--reps", "1", "--threads", "1")
        self.assertEqual((code, len(out.splitlines())), (0, 3))
        self.assert_error(bise("bench", "decode", path, "--contexts", "300000", "--reps", "1"), 1, "300000", "262144")

    def test_load_tells_cold_and_warm(self):
        path, made = self.make("m.gguf", "--format", "Q4_0")
        cold, warm = self.rows("load", path, "--reps", 1)
        self.assertEqual((cold["mode"], warm["mode"]), ("cold", "warm"))
        self.assertLessEqual({"load_s", "load_gb_s", "disk_gb_s", "load_share", "peak_rss_mb", "memory_ratio"}, cold.keys())
        self.assertAlmostEqual(cold["stored_mb"], made["bytes"] / 2**20)

    def test_ops_need_no_model(self):
        rows = self.rows("ops", "--ops", "matmul,embed,attention,row-wise", "--formats", "Q4_K,BF16,FP8", "--shapes", "64x512", "--tokens",
                         "1,5", "--contexts", "33", "--kv-types", "bf16,f32", "--seconds", 0)
        self.assertEqual({r["op"] for r in rows}, {"matmul", "embed", "attention", "rms_norm", "gated_activation"})
        self.assertEqual([(r["format"], r["tokens"]) for r in rows if r["op"] == "matmul"],
                         [(f, t) for f in ("BF16", "FP8", "Q4_K") for t in (1, 5)])
        self.assertEqual([(r["kv"], r["sequences"], r["tokens"]) for r in rows if r["op"] == "attention"],
                         [(k, *st) for st in ((1, 1), (4, 1), (1, 33)) for k in ("bf16", "f32")])
        firsts = {r["op"]: r for r in reversed(rows)}
        for row in rows:
            self.assertLessEqual(row["read_share_min"], row["read_share"])
            self.assertLessEqual(row["read_share"], row["read_share_max"])
        self.assertEqual({r["time_ratio"] for r in firsts.values()}, {1})
        rows = self.rows("ops", "--list", "--isa", "scalar")
        self.assertEqual({r["isa"] for r in rows}, {"scalar"})
        self.assertEqual(next(r for r in rows if r["format"] == "Q4_K")["stored_bits"], 4.5)

    def test_wrong_usage_names_what_is_allowed(self):
        self.assert_error(bise("bench"), 2, "run", "make-model")
        self.assert_error(bise("bench", "decode", MODEL, "--contexts", "1,x"), 2, "--contexts")
        self.assert_error(bise("bench", "batch", MODEL, "--batches", "0"), 2, "--batches", "256")
        self.assert_error(bise("bench", "ops", "--formats", "Q9"), 2, "Q9", "Q4_K")
        self.assert_error(bise("bench", "ops", "--shapes", "12"), 1, "--shapes", "12", "28672x12288")
        out = self.folder / "x"
        self.assert_error(bise("bench", "make-model", out), 2, "--format")
        self.assert_error(bise("bench", "make-model", out, "--format", "Q9"), 2, "Q9", "BF16")
        self.assert_error(bise("bench", "make-model", out, "--format", "Q4_K"), 1, "Q4_K", "gguf")
        self.assert_error(bise("bench", "make-model", out, "--format", "Q4_K", "--layout", "gguf"), 1, ".gguf")
        self.assert_error(bise("bench", "make-model", str(out) + ".gguf", "--format", "Q4_K", "--hidden", "100"), 1, "256")
        self.assert_error(bise("bench", "make-model", out, "--format", "F32", "--layers", "1000", "--ffn", "4194304",
                               "--hidden", "1048576"), 1, "free")
        self.assertEqual(list(self.folder.iterdir()), [])


# Sanitizers keep memory of their own, of which a ceiling knows nothing.
SANITIZED = is_sanitized(BISE)


@unittest.skipIf(SANITIZED, "a build with sanitizers has no ceiling to hold")
class Memory(Case):
    """A model of 150 MB of random weights, in less memory than that."""

    LAYERS, HIDDEN, WIDE = 6, 1024, 3072

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.model = pathlib.Path(cls.temporary.name)
        small = GOLDEN / "model/ckpt/smalltext/hf-bf16"
        config = json.loads((small / "config.json").read_text())
        config |= {"hidden_size": cls.HIDDEN, "intermediate_size": cls.WIDE, "num_hidden_layers": cls.LAYERS,
                   "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128}
        (cls.model / "config.json").write_text(json.dumps(config))
        for name in ("tekken.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(small / name, cls.model / name)
        hidden, wide = cls.HIDDEN, cls.WIDE
        shapes = {"model.embed_tokens.weight": (1536, hidden), "lm_head.weight": (1536, hidden), "model.norm.weight": (hidden,)}
        for i in range(cls.LAYERS):
            layer = f"model.layers.{i}."
            shapes |= {layer + "input_layernorm.weight": (hidden,), layer + "post_attention_layernorm.weight": (hidden,),
                       layer + "self_attn.q_proj.weight": (1024, hidden), layer + "self_attn.k_proj.weight": (256, hidden),
                       layer + "self_attn.v_proj.weight": (256, hidden), layer + "self_attn.o_proj.weight": (hidden, 1024),
                       layer + "mlp.gate_proj.weight": (wide, hidden), layer + "mlp.up_proj.weight": (wide, hidden),
                       layer + "mlp.down_proj.weight": (hidden, wide)}
        header, at = {}, 0
        for name, shape in shapes.items():
            size = 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        draw = random.Random(1)
        with open(cls.model / "model.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, shape in shapes.items():
                if len(shape) == 1:
                    file.write(b"\x80\x3f" * shape[0])
                    continue
                # Every second byte is sign and exponent: numbers around 0.01.
                left = 2 * math.prod(shape)
                while left > 0:
                    codes = bytearray(draw.randbytes(min(left, 1 << 20)))
                    codes[1::2] = bytes(0x3c if c & 1 else 0xbc for c in codes[1::2])
                    left -= file.write(codes)
        cls.size = (cls.model / "model.safetensors").stat().st_size

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def run_with(self, *options):
        """-> exit code, stdout, stderr, peak of resident memory in bytes as the system counts it"""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen([BISE, "run", str(self.model), "--raw", "-p", "hello there", "--temperature", "0",
                                        "--max-tokens", "5", "--context", "256", "--threads", "2", *options],
                                       stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            return process.returncode, out.read(), err.read().decode(), usage.ru_maxrss * 1024

    def test_a_ceiling_below_the_model_holds_and_changes_no_answer(self):
        code, expected, err, whole = self.run_with()
        self.assertEqual(code, 0, err)
        self.assertNotIn("memory: ", err.replace("peak memory", ""))
        self.assertGreater(whole, self.size)
        for ceiling in (64, 96):
            code, out, err, peak = self.run_with("--memory", f"{ceiling}MiB")
            self.assertEqual((code, out), (0, expected), err)
            self.assertLess(peak, ceiling << 20)
            self.assertLess(ceiling << 20, self.size)
            for words in ("are read from the disk for every token", "s per token; the disk gives", "expected; peak memory"):
                self.assertIn(words, err)

    def test_json_tells_what_streamed(self):
        code, out, err, _ = self.run_with("--memory", "64MiB", "--json")
        self.assertEqual(code, 0, err)
        streaming = json.loads(out)["streaming"]
        self.assertGreater(streaming["bytes_per_token"], self.size / 2)
        self.assertGreater(streaming["disk_gb_s"], 0)
        self.assertGreater(streaming["seen_s_per_token"], 0)

    def test_a_ceiling_that_is_too_small_says_what_is_needed(self):
        code, out, err, _ = self.run_with("--memory", "10MiB")
        self.assert_error((code, out.decode(), err), 1, "a ceiling of 10 MiB is too small", "at least", "--context")
        self.assert_error(bise("run", self.model, "-p", "x", "--memory", "much"), 2, "--memory")

    def test_a_server_whose_disk_fails_says_so_and_is_well_again_with_the_disk(self):
        with Server(BISE, self.model, "--memory", "64MiB", "--context", "256", "--threads", "2") as server:
            def ask():
                status, _, text = server.request("POST", "/v1/completions", {"prompt": "hello", "max_tokens": 2, "temperature": 0})
                return status, json.loads(text)

            status, before = ask()
            self.assertEqual(status, 200, before)
            file = self.model / "model.safetensors"
            tail = file.read_bytes()[self.size // 3:]
            os.truncate(file, self.size // 3)
            try:
                for healthy in (True, True, False):
                    status, answer = ask()
                    self.assertEqual(status, 500, answer)
                    self.assertIn("model.safetensors", answer["error"]["message"])
                    self.assertEqual(server.get("/health")[0], 200 if healthy else 503)
                self.assertIn("the last 3 steps failed", server.get("/health")[2])
            finally:
                with open(file, "ab") as whole:
                    whole.write(tail)
            status, after = ask()
            self.assertEqual(status, 200, after)
            self.assertEqual(after["choices"][0]["text"], before["choices"][0]["text"])
            self.assertEqual(server.get("/health")[0], 200)

    def test_the_variable_sets_it_too(self):
        code, _, err = bise("run", self.model, "--raw", "-p", "x", "--max-tokens", "1", "--context", "64", env={"BISE_MEMORY": "64MiB"})
        self.assertEqual(code, 0, err)
        self.assertIn("memory: 64 MiB at most", err)


class Probes(Case):
    def ask(self, what, *lines, model=MODEL, options=()):
        text = "".join(l if isinstance(l, str) else json.dumps(l) + "\n" for l in lines)
        code, out, err = bise("probe", what, model, *options, stdin=text.encode())
        self.assertEqual(code, 0, err)
        return [json.loads(line) for line in out.splitlines()]

    def test_a_structure_is_given_one_way(self):
        lines = [{"regex": "a+", "texts": []}, {"regex": "a+", "grammar": "start: /a/", "texts": []},
                 {"schema": {"type": "integer"}, "structural_tag": {}, "texts": []}, {"texts": []}]
        one, two, tag, none = self.ask("structure", *lines, model=TEKKEN)
        self.assertNotIn("give one of", json.dumps(one))
        for answer, field in ((two, "grammar"), (tag, "structural_tag"), (none, "schema")):
            self.assertEqual(answer["error"]["param"], field)
            self.assertIn("give one of schema, regex, grammar, structural_tag", answer["error"]["message"])

    def test_a_bare_tokenizer_file_is_enough_for_words(self):
        a, bad, b = self.ask("tokenize", {"id": 1, "text": "a"}, "nonsense\n", {"id": 2, "text": "b"}, model=TEKKEN)
        self.assertEqual((a["id"], b["id"]), (1, 2))
        self.assertIn("message", bad["error"])

    def test_logits_come_per_position_with_the_id_repeated(self):
        with tempfile.TemporaryDirectory() as folder:
            dump = folder + "/rows.npy"
            rows = self.ask("logits", {"id": "x", "ids": [1, 1072, 1105], "positions": [0, 2], "top": 5, "dump": dump})
            self.assertEqual([(r["id"], r["position"], len(r["top"])) for r in rows], [("x", 0, 5), ("x", 2, 5)])
            for row in rows:
                self.assertEqual(row["top"], sorted(row["top"], key=lambda t: -t[1]))
            data = pathlib.Path(dump).read_bytes()
            self.assertIn(b"(2, 1536)", data[:128])
            self.assertEqual(len(data) % 64, (2 * 1536 * 4) % 64)
        for line in ({"ids": []}, {"ids": [5000]}, {"ids": [1], "positions": [1]}, {"ids": [1], "top": -1},
                     {"ids": [1], "images": ["/nothing.png"]}, {}):
            self.assertIn("error", self.ask("logits", line)[0], line)

    def test_perplexity_is_that_of_the_logits_and_two_runs_are_compared_token_by_token(self):
        ids = [5, 700, 800, 900, 1000, 1100]
        with tempfile.TemporaryDirectory() as folder:
            lines, saved, text = (pathlib.Path(folder, name) for name in ("ids.jsonl", "saved.json", "text.txt"))
            lines.write_text(json.dumps({"ids": ids, "first": 2}) + "\n\n" + json.dumps({"ids": ids[::-1]}) + "\n")
            sums = []   # of -log p, from the probe
            for row, first in ((ids, 2), (ids[::-1], 1)):
                line = {"ids": row, "positions": list(range(first - 1, 5)), "top": 1000}
                code, out, err = bise("probe", "logits", MODEL, "--precision", "reference", stdin=json.dumps(line).encode())
                self.assertEqual(code, 0, err)
                for answer in map(json.loads, out.splitlines()):
                    sums += [-p for token, p in answer["top"] if token == row[answer["position"] + 1]]
            self.assertGreater(len(sums), 4)   # the tiny model's vocabulary is a little larger than a thousand
            code, out, err = bise("eval", "ppl", MODEL, "--ids", lines, "--precision", "reference", "--save", saved, "--json")
            self.assertEqual(code, 0, err)
            found = json.loads(out)
            self.assertEqual((found["tokens"], found["windows"]), (9, 2))
            logprobs = json.loads(saved.read_text())["logprobs"]
            self.assertAlmostEqual(found["perplexity"], math.exp(-sum(logprobs) / 9), places=6)
            for p in sums:   # each is among them
                self.assertLess(min(abs(-p - q) for q in logprobs), 1e-4)
            code, out, err = bise("eval", "ppl", MODEL, "--ids", lines, "--precision", "reference", "--base", saved, "--json")
            self.assertEqual((code, json.loads(out)["ratio"], json.loads(out)["ratio_error"]), (0, 1.0, 0.0), err)
            self.assert_error(bise("eval", "ppl", MODEL, "--ids", lines, "--windows", "1", "--base", saved), 1, "saved.json", "other tokens")
            self.assert_error(bise("eval", "ppl", MODEL), 2, "--text", "--ids")
            self.assert_error(bise("eval", "ppl", MODEL, "--text", folder + "/none"), 1, "none")
            self.assert_error(bise("eval", "ppl", MODEL, "--ids", lines, "--save", folder + "/none/x"), 1, "none")
            text.write_text("hello")
            self.assert_error(bise("eval", "ppl", MODEL, "--text", text), 1, "text.txt", "512")
            for bad, words in (("{", ["line 2"]), ("[1]", ["line 2", "object"]), ('{"ids": [1]}', ["line 2", "first"]),
                               ('{"ids": [1, 2, 3], "first": 3}', ["line 2", "first"]), ('{"ids": [1, 99999999]}', ["line 2", "ids"]),
                               ('{"ids": [1, 2], "last": 1}', ["line 2", "last"])):
                lines.write_text(json.dumps({"ids": ids}) + "\n" + bad + "\n")
                self.assert_error(bise("eval", "ppl", MODEL, "--ids", lines), 1, "ids.jsonl", *words)
            text.write_text("The wind blows down the valley. " * 200)
            code, out, err = bise("eval", "ppl", MODEL, "--text", text, "--window", "64", "--windows", "2")
            self.assertEqual(code, 0, err)
            self.assertIn("62 tokens in 2 windows", out)

    def test_generate_is_greedy_by_default_and_stops_at_max_tokens(self):
        line = {"ids": [1, 1072, 1105], "max_tokens": 5, "ignore_eos": True}
        a, b, bad = self.ask("generate", line, line, {"ids": [1], "temperature": -1})
        self.assertEqual(a, b)
        self.assertEqual((len(a["ids"]), a["finish_reason"]), (5, "length"))
        self.assertEqual(bad["error"]["param"], "temperature")

    def test_image_and_tensor_write_arrays(self):
        with tempfile.TemporaryDirectory() as folder:
            out = folder + "/a.npy"
            image = self.ask("image", {"file": str(GOLDEN / "model/images/small.png"), "out": out})[0]
            self.assertEqual((image["width"], image["height"], image["rows"], image["cols"]), (140, 84, 3, 5))
            self.assertEqual(pathlib.Path(out).stat().st_size % 64, (3 * 84 * 140 * 4) % 64)
            name = "model.language_model.layers.0.self_attn.q_proj.weight"
            hf = self.ask("tensor", {"name": name, "out": out})[0]
            hf_bytes = pathlib.Path(out).read_bytes()
            consolidated = self.ask("tensor", {"name": name, "out": out}, model=MODEL.parent / "mistral-bf16")[0]
            self.assertEqual(hf["shape"], consolidated["shape"])
            self.assertEqual(hf_bytes, pathlib.Path(out).read_bytes(), "same values in HF row order")
            self.assertIn("error", self.ask("tensor", {"name": "nothing"})[0])


class Interrupts(Case):
    def test_ctrl_c_is_130(self):
        process = subprocess.Popen([BISE, "probe", "tokenize", TEKKEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdin.write(b'{"text": "a"}\n')
        process.stdin.flush()
        self.assertIn(b"ids", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        self.assertEqual(process.returncode, 130)
        self.assertEqual(err, b"error: interrupted\n")

    def test_ctrl_c_in_chat_does_not_end_the_program(self):
        controller, terminal = pty.openpty()
        process = subprocess.Popen([BISE, "chat", MODEL, "--max-tokens", "3"], stdin=terminal, stdout=terminal,
                                   stderr=terminal, start_new_session=True, env={**os.environ, "TERM": "xterm"})
        os.close(terminal)

        def until(text):
            seen = b""
            while text not in seen:
                if not select.select([controller], [], [], 60)[0]:
                    self.fail(f"no {text!r} in {seen!r}")
                seen += os.read(controller, 4096)
            return seen

        until(b"> ")
        # A signal that comes between the prompt and the read is seen with the next one.
        for _ in range(60):
            process.send_signal(signal.SIGINT)
            if select.select([controller], [], [], 1)[0]:
                break
        until(b"leaves")
        os.write(controller, b"/help\r")
        until(b"/save FILE")
        os.write(controller, b"/exit\r")
        for _ in range(600):
            if process.poll() is not None:
                break
            if select.select([controller], [], [], 0.1)[0]:
                try:
                    os.read(controller, 4096)
                except OSError:
                    time.sleep(0.1)  # the other end is closed; the exit code follows
        self.assertEqual(process.poll(), 0)
        os.close(controller)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
