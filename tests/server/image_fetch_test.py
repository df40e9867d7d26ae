#!/usr/bin/env python3
"""Pictures by http and https: what `bise serve` fetches, from whom, and how it gives up."""
import base64
import http.server
import json
import os
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from serve_case import BISE, GOLDEN, MODEL, OPTIONS, Case, Server, main

PICTURE = (GOLDEN / "own/images/png-rgb8-key.png").read_bytes()
MIB = 1 << 20


class Origin(http.server.BaseHTTPRequestHandler):
    """The host of pictures; its paths are its faults."""
    protocol_version = "HTTP/1.1"
    seen, left = [], threading.Event()

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        Origin.seen.append(self.path)
        try:
            self.respond(self.path.strip("/"))
        except OSError:
            Origin.left.set()

    def respond(self, path):
        here = f"http://127.0.0.1:{self.server.server_port}"
        targets = {"redirect": "/ok.png", "relative": "ok.png", "loop": "/loop", "file": "file:///etc/passwd", "elsewhere": "http://127.0.0.2/x",
                   "other-port": "http://127.0.0.1:1/x", "down": here + "/ok.png", "far": "http://localhost:%d/ok.png" % self.server.server_port}
        if path == "ok.png":
            self.answer(200, {"Content-Type": "image/png"}, PICTURE)
        elif path == "untyped":
            self.answer(200, {}, PICTURE)
        elif path == "page":
            self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>secret</html>")
        elif path == "nonsense":
            self.answer(200, {"Content-Type": "image/png"}, b"nonsense" * 100)
        elif path == "gone":
            self.answer(410, {"Content-Type": "text/plain"}, b"secret" * MIB)
        elif path in targets:
            self.answer(302, {"Location": targets[path]})
        elif path == "named-large":
            self.send_response(200)
            self.send_header("Content-Length", str(30 * MIB))
            self.end_headers()
        elif path in ("endless", "nineteen"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            for _ in range(19 if path == "nineteen" else 1000):
                self.wfile.write(b"\0" * MIB)
            self.close_connection = True
        elif path == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif path == "never":
            self.connection.settimeout(60)
            if not self.connection.recv(1):
                Origin.left.set()
            self.close_connection = True


def serve_origin(tls=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Fetching(Case):
    @classmethod
    def setUpClass(cls):
        cls.origin = serve_origin()
        cls.port = cls.origin.server_port
        cls.base = f"http://127.0.0.1:{cls.port}"
        os.environ["http_proxy"] = os.environ["https_proxy"] = os.environ["ALL_PROXY"] = "http://127.0.0.1:1"  # must not be asked
        cls.server = Server(BISE, MODEL, *OPTIONS, "--allowed-media-domains", f"127.0.0.1:{cls.port}", f"localhost:{cls.port}",
                            "--allowed-media-networks", "127.0.0.1/32", "--image-fetch-timeout", "2", "--max-images", "4").__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        cls.origin.shutdown()
        cls.origin.server_close()

    def ask(self, *urls, server=None):
        content = [{"type": "text", "text": "x"}] + [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return (server or self.server).request("POST", "/v1/chat/completions",
                                               {"messages": [{"role": "user", "content": content}], "max_tokens": 3, "temperature": 0})

    def assert_not_fetched(self, url, why, server=None, status=400):
        answer = self.ask(url, server=server)
        error = self.assert_refused(answer, status, None, "messages[0].content[1]", "invalid_image_url")
        self.assertRegex(error["message"], r"^messages\[0\]\.content\[1\]: the picture cannot be fetched: " + why)
        self.assertNotIn("secret", error["message"])

    def test_a_picture_by_url_is_the_same_as_by_data(self):
        inline = self.ask("data:image/png;base64," + base64.b64encode(PICTURE).decode())
        self.assertEqual(inline[0], 200)
        for path in ("ok.png", "untyped", "redirect", "relative", "far"):
            fetched = self.ask(f"{self.base}/{path}")
            self.assertEqual(fetched[0], 200, fetched[2])
            for key in ("choices", "usage"):
                one, other = json.loads(fetched[2])[key], json.loads(inline[2])[key]
                if key == "usage":
                    one, other = one["prompt_tokens"], other["prompt_tokens"]
                self.assertEqual(one, other)
        ids = self.server.post("/tokenize", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": self.base + "/ok.png"}]}]})
        self.assertGreater(ids["count"], 3)

    def test_a_picture_that_is_named_twice_is_fetched_once(self):
        Origin.seen.clear()
        self.assertEqual(self.ask(self.base + "/ok.png", self.base + "/ok.png", self.base + "/untyped")[0], 200)
        self.assertEqual(sorted(Origin.seen), ["/ok.png", "/untyped"])

    def test_only_named_hosts_and_ports_are_asked(self):
        for url in ("http://example.org/x.png", f"http://127.0.0.1:{self.port + 1}/x", "http://127.0.0.1/x", f"http://127.0.0.1.example:{self.port}/x"):
            self.assert_not_fetched(url, r"pictures of \S+ \(port \d+\) are not fetched here; see --allowed-media-domains")
        for url in (f"http://127.0.0.1:{self.port}@example.org/x", f"http://user@127.0.0.1:{self.port}/ok.png", "http://", "http://a b/", "http://[::1",
                    "http://127.0.0.1:99999/x", self.base + "/" + "x" * 5000):
            self.assert_not_fetched(url, "the URL is malformed, too long, or has a user name in it")

    def test_redirects_lead_nowhere_else(self):
        self.assert_not_fetched(self.base + "/loop", "it is redirected more than 3 times")
        self.assert_not_fetched(self.base + "/file", "(only http and https are fetched|the URL is malformed)")
        self.assert_not_fetched(self.base + "/elsewhere", r"pictures of 127\.0\.0\.2 ")
        self.assert_not_fetched(self.base + "/other-port", r"pictures of 127\.0\.0\.1 \(port 1\)")

    def test_what_is_no_picture_is_not_shown(self):
        self.assert_not_fetched(self.base + "/page", "127.0.0.1 sends no picture, but text/html; charset=utf-8$")
        self.assert_not_fetched(self.base + "/gone", "127.0.0.1 answers with status 410$")
        answer = self.ask(self.base + "/nonsense")
        self.assertEqual(answer[0], 400)
        self.assertNotIn("nonsensenonsense", answer[2])

    def test_bytes_time_and_number_have_limits(self):
        for path in ("named-large", "endless"):
            self.assert_not_fetched(f"{self.base}/{path}", "the picture is larger than 20971520 bytes$")
        self.assert_refused(self.ask(*[self.base + "/nineteen"] * 4), 400,
                            "messages[0].content[1]: the picture cannot be fetched: the pictures of one request may have 67108864 bytes together",
                            "messages[0].content[1]", "invalid_image_url")
        for path in ("slow", "never"):
            began = time.monotonic()
            self.assert_not_fetched(f"{self.base}/{path}", "it takes longer than 2000 ms$")
            self.assertLess(time.monotonic() - began, 10)
        Origin.seen.clear()
        error = self.assert_refused(self.ask(*[f"{self.base}/ok.png?{i}" for i in range(5)]), 400, None, "messages")
        self.assertEqual((error["limit"], error["actual"], Origin.seen), (4, 5, []))

    def test_a_private_address_is_not_reached_by_whatever_name(self):
        """With every host allowed and no network."""
        names = ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0")
        with Server(BISE, MODEL, *OPTIONS, "--allowed-media-domains", "*", *(f"{n}:{self.port}" for n in names + ("169.254.169.254",))) as server:
            Origin.seen.clear()
            for name in names:
                self.assert_not_fetched(f"http://{name}:{self.port}/ok.png", r"(\S+ has no address that may be reached from here; see --allowed-media-networks$"
                                        r"|pictures of \S+ \(port)", server)
            self.assert_not_fetched("http://169.254.169.254/latest/meta-data", r"169\.254\.169\.254 has no address that may be reached", server)
            self.assertEqual(Origin.seen, [])

    def test_others_are_served_meanwhile_and_a_client_that_goes_ends_its_fetch(self):
        with Server(BISE, MODEL, *OPTIONS, "--allowed-media-domains", f"127.0.0.1:{self.port}", "--allowed-media-networks", "127.0.0.0/8",
                    "--image-fetch-timeout", "600") as server:
            Origin.left.clear()
            Origin.seen.clear()
            body = json.dumps({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": self.base + "/never"}}]}]}).encode()
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            deadline = time.monotonic() + 30
            while not Origin.seen:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            self.assertEqual(server.request("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 1})[0], 200)
            self.assertFalse(Origin.left.is_set())
            connection.close()
            self.assertTrue(Origin.left.wait(30), "the fetch goes on without its client")

    def test_tls_hosts_are_held_to_their_certificates(self):
        with tempfile.TemporaryDirectory() as folder:
            key, certificate = pathlib.Path(folder, "key.pem"), pathlib.Path(folder, "certificate.pem")
            made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                                   "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
                                  capture_output=True, text=True)
            self.assertEqual(made.returncode, 0, made.stderr)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            origin = serve_origin(context)
            port = origin.server_port
            allowed = ("--allowed-media-domains", f"localhost:{port}", f"127.0.0.1:{port}", f"127.0.0.1:{self.port}", "--allowed-media-networks", "127.0.0.0/8", "::1")
            with Server(BISE, MODEL, *OPTIONS, *allowed, "--media-ca-file", certificate) as server:
                self.assertEqual(self.ask(f"https://localhost:{port}/ok.png", server=server)[0], 200)
                self.assert_not_fetched(f"https://127.0.0.1:{port}/ok.png", ".*(certificate|peer)", server)  # another name than its own
                self.assert_not_fetched(f"https://localhost:{port}/elsewhere", "it is redirected from https to http$", server)
            with Server(BISE, MODEL, *OPTIONS, *allowed) as server:
                self.assert_not_fetched(f"https://localhost:{port}/ok.png", ".*(certificate|peer)", server)
            origin.shutdown()
            origin.server_close()

    def test_rules_that_are_none_are_refused_at_the_start(self):
        for options, message in ((("--allowed-media-domains", "a/b"), '"a/b" is no domain; expected a host, host:port, *.host or *'),
                                 (("--allowed-media-domains", "h:0"), '"h:0" is no domain'),
                                 (("--allowed-media-domains", "h", "--allowed-media-networks", "10.0.0.0/40"), '"10.0.0.0/40" is no network')):
            done = subprocess.run([BISE, "serve", MODEL, "--port", "0", "--threads", "1", *options], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn(message, done.stderr)


if __name__ == "__main__":
    main()
