"""`bise serve` as a process for tests: started on a free port, waited for, ended with SIGTERM."""
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time


class Server:
    """with Server(BISE, MODEL, options…) as server: server.post("/v1/…", {…})"""

    def __init__(self, bise, model, *options, key=None):
        self.command = [str(bise), "serve", str(model), "--port", "0", *map(str, options)]
        self.key = key
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")

    def __enter__(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BISE_") or k == "BISE_HOME"}
        # A sanitizer keeps what was freed, 256 MB by default: that would look like memory that grows.
        clean["ASAN_OPTIONS"] = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "quarantine_size_mb=2:thread_local_quarantine_size_kb=64")))
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=self.log, env=clean)
        deadline = time.monotonic() + 120
        while True:
            found = re.search(r"^at (https?)://(.*):(\d+)/v1", self.text(), re.M)
            if found:
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {self.text()}")
            time.sleep(0.02)
        self.host, self.port = "127.0.0.1", int(found.group(3))
        self.url = f"{found.group(1)}://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
            if self.process.returncode != 0:   # a sanitizer's report, for one
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.text()[-3000:]}")
        self.log.close()

    def text(self):
        with open(self.log.name) as file:
            return file.read()

    def access_log(self):
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    def connect(self, timeout=120):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """-> status, headers (lower case), body text"""
        connection = self.connect()
        headers = dict(headers or {})
        if self.key and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.key}"
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        """-> the answer's JSON; the status must be 200"""
        status, _, text = self.request("POST", path, body, headers)
        if status != 200:
            raise AssertionError(f"{status}: {text}")
        return json.loads(text)

    def events(self, path, body):
        """-> the data of the stream's events, parsed; the last must be [DONE]"""
        status, _, text = self.request("POST", path, {**body, "stream": True})
        if status != 200:
            raise AssertionError(f"{status}: {text}")
        data = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        if not data or data[-1] != "[DONE]":
            raise AssertionError(f"no [DONE] at the end: {text[-300:]}")
        return [json.loads(item) for item in data[:-1]]
