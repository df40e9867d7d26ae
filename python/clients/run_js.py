#!/usr/bin/env python3
"""Starts `bise serve` and runs openai_test.mjs against it.    run_js.py BISE MODEL NODE_FOLDER"""
import os
import pathlib
import subprocess
import sys

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))
from serve_process import Server  # noqa: E402

bise, model, folder = sys.argv[1:]
with Server(bise, model, "--served-model-name", "tiny", "--context", "2048", "--threads", "1") as server:
    done = subprocess.run(["node", "--test", str(here / "openai_test.mjs")], cwd=folder, env={**os.environ, "BISE_URL": server.url})
sys.exit(done.returncode)
