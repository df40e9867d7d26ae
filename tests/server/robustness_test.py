#!/usr/bin/env python3
"""`bise serve` under clients that behave badly, all at once, with the tiny golden model.

  robustness_test.py BISE GOLDEN [REQUESTS [IDLE]]     default: 300 requests, 100 idle connections

Random cancels, disconnects, slow readers, bad bodies and a full queue; meanwhile connections that stay idle, writers of a byte a
second, bodies that are too large, deep JSON, bad UTF-8 and smuggled requests. What is held: no answer is lost or mixed up, errors are those
of the rules, other clients are served, memory is flat, no step failed, and the engine's integrity check (it runs whenever the engine
becomes idle, and ends the process when a block is missing) is clean. scripts/robustness.sh runs 2,000 requests and 1,000 connections.
"""
import collections
import json
import pathlib
import random
import resource
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
from sanitized import is_sanitized  # noqa: E402
from serve_process import Server  # noqa: E402

BISE, GOLDEN = sys.argv[1], pathlib.Path(sys.argv[2])
REQUESTS = int(sys.argv[3]) if len(sys.argv) > 3 else 300
IDLE = int(sys.argv[4]) if len(sys.argv) > 4 else 100
MODEL = GOLDEN / "model/ckpt/medium/hf-bf16"
WORKERS, SEED = 24, 1
PROMPTS = [f"prompt number {i} " + "wind and sea " * i for i in range(12)]
LENGTH = 24

counts, faults, lock = collections.Counter(), [], threading.Lock()
expected = {}
end = threading.Event()


def note(what):
    with lock:
        counts[what] += 1


def fault(text):
    with lock:
        faults.append(text)


class Socket:
    """One connection, with HTTP by hand."""

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(120)
        self.socket.connect(("127.0.0.1", port))
        self.bytes = b""

    def send(self, path, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}"] + [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def more(self, size=65536):
        piece = self.socket.recv(size)
        self.bytes += piece
        return piece

    def head(self):
        while b"\r\n\r\n" not in self.bytes:
            if not self.more():
                raise ConnectionError("closed before the head")
        head, self.bytes = self.bytes.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        return int(lines[0].split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}

    def body(self, headers, size=65536, pause=0.0):
        if "content-length" in headers:
            while len(self.bytes) < int(headers["content-length"]):
                if not self.more(size):
                    raise ConnectionError("closed in the body")
                time.sleep(pause)
            return self.bytes
        while not self.bytes.endswith(b"0\r\n\r\n"):
            if not self.more(size):
                raise ConnectionError("closed in the stream")
            time.sleep(pause)
        out, rest = b"", self.bytes
        while rest:
            length, rest = rest.split(b"\r\n", 1)
            out, rest = out + rest[:int(length, 16)], rest[int(length, 16) + 2:]
        return out

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()


def ask_for(number, **more):
    return {"prompt": PROMPTS[number], "max_tokens": LENGTH, "temperature": 0, "ignore_eos": True, **more}


def text_of_stream(data):
    events = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise ValueError("the stream has no end")
    chunks = [json.loads(event) for event in events[:-1]]
    if any("error" in chunk for chunk in chunks):
        raise ValueError(f"an error in the stream: {chunks[-1]}")
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]


def busy(status, headers, body):
    """A full queue is an answer, too; it must say when to come again."""
    if status not in (429, 503):
        return False
    if "retry-after" not in headers or json.loads(body)["error"]["status"] != status:
        fault(f"a busy answer without its parts: {headers} {body}")
    note("told to come again")
    return True


def whole(port, draw):
    number = draw.randrange(len(PROMPTS))
    client = Socket(port)
    client.send("/v1/completions", ask_for(number))
    status, headers = client.head()
    body = client.body(headers)
    client.close()
    if busy(status, headers, body):
        return
    answer = json.loads(body)["choices"][0]
    if status != 200 or answer["text"] != expected[number]:
        fault(f"prompt {number}: {status} {answer}")
    note("whole answers")


def stream(port, draw, **reading):
    number = draw.randrange(len(PROMPTS))
    client = Socket(port, 2048 if reading else None)
    client.send("/v1/completions", ask_for(number, stream=True))
    status, headers = client.head()
    body = client.body(headers, **reading)
    client.close()
    if busy(status, headers, body):
        return
    if text_of_stream(body) != (expected[number], "length"):
        fault(f"prompt {number}, streamed: {body[-200:]}")
    note("slowly read streams" if reading else "streams")


def slow_reader(port, draw):
    stream(port, draw, size=97, pause=0.004)


def leave(port, draw):
    client = Socket(port)
    client.send("/v1/completions", ask_for(draw.randrange(len(PROMPTS)), max_tokens=400, stream=draw.random() < 0.7, n=draw.choice((1, 1, 3))))
    if draw.random() < 0.7:
        client.more(draw.choice((1, 100, 1000)))
    time.sleep(draw.random() * 0.05)
    client.reset() if draw.random() < 0.5 else client.close()
    note("clients that left")


def cancel(port, draw):
    number, name = draw.randrange(len(PROMPTS)), f"c-{draw.getrandbits(60)}"
    client, other = Socket(port), Socket(port)
    client.send("/v1/completions", ask_for(number, stream=True, request_id=name, max_tokens=400))
    status, headers = client.head()
    if status == 200:
        time.sleep(draw.random() * 0.05)
        other.send(f"/v1/requests/{name}/cancel", b"")
        cancelled, other_headers = other.head()
        other.body(other_headers)
        text, reason = text_of_stream(client.body(headers))
        if cancelled not in (200, 404) or (cancelled == 200 and reason not in ("abort", "length")):
            fault(f"cancel: {cancelled}, {reason}")
        if not text.startswith(expected[number][:len(text)]):
            fault(f"a cancelled answer to {number} says {text!r}")
        note("cancelled")
    else:
        busy(status, headers, client.body(headers))
    client.close()
    other.close()


BAD_BODIES = [b"", b"{", b"[]", b"null", b'{"prompt":"\xff\xfe"}', b'{"prompt":' + b"[" * 50000, b'{"prompt":"x","temperature":1e999}',
              b'{"prompt":"x","n":-1}', b'{"prompt":[1e99]}', b'{"prompt":["' + b"a" * 100000, b'{"prompt":"x","max_tokens":NaN}',
              b'{"prompt":"x","guided_regex":"["}', b'{"prompt":"x","logit_bias":{"-1":1}}', b'\x00' * 100, b'{"prompt":[[[1]]]}',
              b'{"prompt":"x","stop":["' + b"s" * 1000 + b'"]}', b'{"prompt":[999999999]}']


def bad_body(port, draw):
    client = Socket(port)
    client.send(draw.choice(("/v1/completions", "/v1/chat/completions")), draw.choice(BAD_BODIES))
    status, headers = client.head()
    error = json.loads(client.body(headers))["error"]
    if status != 400 or error["status"] != 400 or not error["message"] or len(error["message"]) > 2000:
        fault(f"a bad body: {status} {error}")
    client.close()
    note("bad bodies")


def half_request(port, draw):
    client = Socket(port)
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"{" * 500
    client.socket.sendall(request[:draw.randrange(1, len(request))])
    client.reset() if draw.random() < 0.5 else client.close()
    note("halves of requests")


ACTIONS = [(whole, 25), (stream, 25), (slow_reader, 8), (leave, 15), (cancel, 10), (bad_body, 12), (half_request, 5)]


def worker(port, seed, todo):
    draw = random.Random(seed)
    actions, weights = zip(*ACTIONS)
    while True:
        with lock:
            if not todo:
                return
            todo.pop()
        action = draw.choices(actions, weights)[0]
        try:
            action(port, draw)
        except Exception as error:  # noqa: BLE001
            fault(f"{action.__name__}: {error!r}")


def slow_writer(port):
    """A byte now and then: told 408, or closed, when the time for a header is over."""
    client = Socket(port)
    begin = time.monotonic()
    try:
        for byte in b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 600:
            client.socket.sendall(bytes([byte]))
            time.sleep(0.05)
            client.socket.setblocking(False)
            try:
                if client.more():
                    break
            except BlockingIOError:
                pass
            client.socket.settimeout(5)
    except OSError:
        pass
    seconds = time.monotonic() - begin
    if client.bytes and b" 408 " not in client.bytes:
        fault(f"a slow writer was answered {client.bytes[:80]}")
    if seconds > 20:
        fault(f"a slow writer was borne for {seconds:.0f} s")
    client.close()
    note("slow writers refused")


def large_body(port, chunked):
    client = Socket(port)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: 100000000\r\n\r\n"
    sent = 0
    try:
        client.socket.sendall(head)
        piece = b"100000\r\n" + b"a" * (1 << 20) + b"\r\n" if chunked else b"a" * (1 << 20)
        for _ in range(100):
            client.socket.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    try:
        status = client.head()[0]
        if status != 413:
            fault(f"a body of 100 MB was answered {status}")
    except OSError:  # reset while we were still writing; only the size of what was taken counts
        pass
    if sent > 40 << 20:
        fault(f"{sent} bytes of a body that is too large were read")
    client.close()
    note("bodies of 100 MB refused")


def smuggle(port):
    good = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    for lengths in (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"Content-Length: 4\r\nContent-Length: 5", b"Transfer-Encoding: chunked, identity",
                    b"Transfer-Encoding : chunked", b"Transfer-Encoding: \x0bchunked", b"Content-Length: +4", b"Content-Length: 4, 4"):
        client = Socket(port)
        client.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\n\r\n0\r\n\r\n" + good)
        answers = b""
        try:
            while piece := client.socket.recv(65536):
                answers += piece
        except OSError:
            pass
        if answers.count(b"HTTP/1.1 ") != 1 or not (b" 400 " in answers[:20] or b" 501 " in answers[:20]):
            fault(f"{lengths}: {answers[:300]}")
        client.close()
        note("smuggled requests refused")


def good_client(port, waits):
    """Somebody who behaves, all the while."""
    while not end.is_set():
        begin = time.monotonic()
        client = Socket(port)
        client.socket.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = client.head()
        client.body(headers)
        client.close()
        waits.append(time.monotonic() - begin)
        if status != 200:
            fault(f"health said {status}")
        time.sleep(0.05)


def resident_mb(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def run(port, number, seed):
    todo = [None] * number
    threads = [threading.Thread(target=worker, args=(port, seed * 1000 + i, todo)) for i in range(WORKERS)]
    for thread in threads:
        thread.start()
    return threads


def settle(server):
    for _ in range(600):
        health = json.loads(server.get("/health")[2])
        if health["running"] == 0 and health["waiting"] == 0:
            return
        time.sleep(0.05)
    fault(f"sequences remain: {health}")


def serve_and_close(idle):
    """They are still there, and served."""
    for client in idle:
        client.socket.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for client in idle:
        if client.head()[0] != 200:
            fault("an idle connection was not served")
        client.close()


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * IDLE + 4096), hard))
    options = ("--served-model-name", "tiny", "--context", "1024", "--kv-cache-tokens", "2048", "--max-num-seqs", "8", "--max-waiting", "20",
               "--max-body", "1MiB", "--header-timeout", "10", "--body-timeout", "10", "--idle-timeout", "300", "--threads", "1", "--no-access-log")
    with Server(BISE, MODEL, *options) as server:
        for number in range(len(PROMPTS)):
            expected[number] = server.post("/v1/completions", ask_for(number))["choices"][0]["text"]
        # A quarter of everything first: allocator and threads then hold what such a crowd needs.
        crowd = [Socket(server.port) for _ in range(IDLE)]
        for thread in run(server.port, REQUESTS // 4, SEED):
            thread.join()
        serve_and_close(crowd)
        settle(server)
        before = resident_mb(server.process.pid)

        idle = [Socket(server.port) for _ in range(IDLE)]
        waits = []
        others = [threading.Thread(target=good_client, args=(server.port, waits))]
        others += [threading.Thread(target=slow_writer, args=(server.port,)) for _ in range(8)]
        for thread in others:
            thread.start()
        threads = run(server.port, REQUESTS - REQUESTS // 4, SEED + 1)
        for chunked in (False, True):
            large_body(server.port, chunked)
        smuggle(server.port)
        for thread in threads + others[1:]:
            thread.join()
        end.set()
        others[0].join()
        serve_and_close(idle)
        settle(server)
        time.sleep(0.5)
        after = resident_mb(server.process.pid)
        metrics = dict(line.rsplit(" ", 1) for line in server.get("/metrics")[2].splitlines() if line and line[0] != "#")
        failed = sum(float(v) for k, v in metrics.items() if k.startswith("bise_failed_steps_total"))
        used = [float(v) for k, v in metrics.items() if k.startswith("vllm:kv_cache_usage_perc")]
        if failed or used != [0.0]:
            fault(f"{failed} steps failed, {used} of the KV cache is in use")
        for number in (0, len(PROMPTS) - 1):
            if server.post("/v1/completions", ask_for(number))["choices"][0]["text"] != expected[number]:
                fault("the last answer is not the first")
        if after > before + (32 if is_sanitized(BISE) else 8):
            fault(f"memory grew from {before:.0f} to {after:.0f} MB")
        waits.sort()
        print(f"{REQUESTS} requests: {dict(sorted(counts.items()))}")
        print(f"memory {before:.1f} MB after a quarter, {after:.1f} MB at the end; {IDLE} idle connections; "
              f"/health meanwhile: median {waits[len(waits) // 2] * 1e3:.1f} ms, worst {waits[-1] * 1e3:.0f} ms of {len(waits)}")
        for text in faults[:20]:
            print("FAULT:", text)
        process = server.process
    if process.returncode != 0:
        faults.append(f"the server ended with {process.returncode}")
        print(faults[-1])
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
