#!/usr/bin/env python3
"""`bise serve` as a program of the network: bytes that no client library would send, keys, logs, signals."""
import json
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

from serve_case import BISE, GOLDEN, HI, MODEL, OPTIONS, Case, Server, WithServer, main


class Wire(WithServer):
    """Bytes that no client library would send."""

    def raw(self, data, shut=False, patience=None):
        """What comes until the server closes, as it must; with `patience`, what comes in so many seconds."""
        out = b""
        with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            connection.settimeout(patience or 60)
            try:
                connection.sendall(data)
                if shut:
                    connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    out += piece
            except ConnectionError:
                pass
            except socket.timeout:
                self.assertTrue(patience, "the server did not close the connection")
        return out

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
        self.assertTrue(self.status(b"GET /hea").startswith(b"HTTP/1.1 408"))
        self.assertTrue(self.status(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{").startswith(b"HTTP/1.1 408"))
        self.assertEqual(self.raw(b""), b"")

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
            self.raw(data, patience=0.05)
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
        deadline = time.monotonic() + 60
        while (status := self.server.request("POST", "/v1/requests/cmpl-mine/cancel", b"")[0]) != 200:
            self.assertLess(time.monotonic(), deadline, "it cannot be cancelled")
            time.sleep(0.01)
        thread.join(60)
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
            deadline = time.monotonic() + 60
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
        with Server(BISE, MODEL, *OPTIONS, "--shutdown-timeout", "300") as server:
            events = []
            body = {"prompt": "hi", "max_tokens": 1500, "ignore_eos": True}
            thread = threading.Thread(target=lambda: events.extend(server.events("/v1/completions", body)))
            thread.start()
            deadline = time.monotonic() + 60
            while json.loads(server.get("/health")[2])["running"] == 0:
                self.assertLess(time.monotonic(), deadline)
            server.process.send_signal(signal.SIGTERM)
            thread.join(300)
            self.assertEqual(events[-1]["choices"][0]["finish_reason"], "length")
            self.assertEqual(server.process.wait(60), 0)
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
    main()
