#!/usr/bin/env python3
"""The figures of docs/PERFORMANCE.md about serving: starts `bise serve`, measures, prints.

  measure_serving.py BISE MODEL [WHAT…]     WHAT: streams overhead prompts prefix; all when none is named

Takes seconds with the demo model, about a minute with SmolLM2. Nothing else should run on the machine.
"""
import json
import pathlib
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
from serve_process import Server  # noqa: E402

BISE, MODEL = sys.argv[1:3]
WHAT = sys.argv[3:] or ["streams", "overhead", "prompts", "prefix"]


def bench(server, *options):
    done = subprocess.run([BISE, "bench", "serve", "--base-url", f"http://127.0.0.1:{server.port}", "--backend", "openai", "--ignore-eos",
                           "--json", "--metric-percentiles", "50,99", *map(str, options)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def metrics(server):
    out = {}
    for line in server.get("/metrics")[2].splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            out[name.split("{")[0]] = float(value)
    return out


def ids(number, first=1000):
    """`first` chooses; below the 8192 of the smallest vocabulary that is measured, above control tokens"""
    return [1000 + (first + i * 7919) % 7000 for i in range(number)]


def first_token(server, prompt, **more):
    """-> seconds until an answer of one token, tokens found in the cache"""
    begin = time.monotonic()
    answer = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 1, "temperature": 0, **more})
    return time.monotonic() - begin, answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def streams():
    rates = {}
    for number in (1, 8, 1, 8):
        with Server(BISE, MODEL, "--no-access-log") as server:
            report = bench(server, "--num-prompts", 2 * number, "--max-concurrency", number, "--input-len", 16, "--output-len", 96)
        rates[number] = max(rates.get(number, 0), report["output_throughput"])
    print(f"streams: 1: {rates[1]:.0f} tokens/s, 8: {rates[8]:.0f} tokens/s, {rates[8] / rates[1]:.2f} times")


def overhead():
    with Server(BISE, MODEL, "--no-access-log") as server:
        before = metrics(server)
        report = bench(server, "--num-prompts", 32, "--num-warmups", 0, "--input-len", 16, "--output-len", 128)
        after = metrics(server)
    step, forward = (after[f"bise_{k}_seconds_sum"] - before[f"bise_{k}_seconds_sum"] for k in ("step", "forward"))
    wall = report["duration"]
    print(f"overhead, 32 streams: {report['output_throughput']:.0f} tokens/s; of the steps {100 * (step - forward) / step:.1f} % is not the "
          f"forward pass; of the wall time of the whole load {100 * (wall - forward) / wall:.1f} %")


def prompts():
    with Server(BISE, MODEL, "--no-access-log") as server:
        length = min(8000, json.loads(server.get("/v1/models")[2])["data"][0]["max_model_len"] - 64)
        first_token(server, ids(600, 1500))  # the engine learns what a prompt's tokens cost
        asked = ("--num-prompts", 1, "--num-warmups", 0, "--input-len", 16, "--output-len", 300)
        idle = bench(server, *asked)
        before = metrics(server)["vllm:prompt_tokens_total"]
        arrivals = []

        def arrive():  # beside the stream that runs; more than can be read meanwhile, given up with it
            time.sleep(0.4)
            for i in range(4):
                body = json.dumps({"prompt": ids(length, 2000 + i), "max_tokens": 1}).encode()
                arrivals.append(server.connect())
                arrivals[-1].request("POST", "/v1/completions", body)

        thread = threading.Thread(target=arrive)
        thread.start()
        busy = bench(server, *asked)
        thread.join()
        read = metrics(server)["vllm:prompt_tokens_total"] - before
        for connection in arrivals:
            connection.close()
    print(f"between tokens while prompts of {length} tokens are read ({read / busy['duration']:.0f} tokens/s): P99 {busy['p99_itl_ms']:.1f} ms, "
          f"median {busy['median_itl_ms']:.1f} ms; idle: P99 {idle['p99_itl_ms']:.1f} ms, median {idle['median_itl_ms']:.1f} ms; "
          f"P99 {busy['p99_itl_ms'] / idle['p99_itl_ms']:.2f} times")


def prefix():
    with Server(BISE, MODEL, "--no-access-log") as server:
        shared, new = ids(4096), [[3000 + i * 256 + j for j in range(64)] for i in range(6)]
        cold, _ = first_token(server, shared + new[0])
        warm = [first_token(server, shared + tail) for tail in new[1:]]
        alone = [first_token(server, tail)[0] for tail in new[1:]]
        misses = []
    for option in ("--enable-prefix-caching", "--no-enable-prefix-caching"):
        with Server(BISE, MODEL, "--no-access-log", option) as server:
            first_token(server, ids(1024, 500))
            misses.append(min(first_token(server, ids(1024, 1000 + 50 * i))[0] for i in range(4)))
    hit = min(seconds for seconds, _ in warm)
    print(f"prefix of 4096 tokens: cold {cold * 1e3:.0f} ms; again with 64 new tokens {hit * 1e3:.1f} ms ({warm[0][1]} tokens found), the 64 alone "
          f"{min(alone) * 1e3:.1f} ms, {hit / min(alone):.2f} times; without a hit, 1024 tokens: {misses[0] * 1e3:.0f} ms with the cache on, "
          f"{misses[1] * 1e3:.0f} ms with it off ({100 * (misses[0] / misses[1] - 1):+.1f} %)")


for name in WHAT:
    {"streams": streams, "overhead": overhead, "prompts": prompts, "prefix": prefix}[name]()
    sys.stdout.flush()
