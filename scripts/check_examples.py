#!/usr/bin/env python3
"""Runs the examples of the documents against the built program.

    check_examples.py FOLDER_OF_BISE [--smollm2 | --serve] FILE.md…

A block that begins ```console test is run: lines that begin with "$ " are commands, the lines below them what they print on
stdout. "…" in a line stands for anything within it, a line of "…" alone for any number of lines. A command that ends with
"# exit N" must have that exit status, others 0. Blocks marked ```console test smollm2 need SmolLM2 in the local store;
they are run with --smollm2, and alone: without the model the exit status is 77. Blocks marked ```console test serve are run with
--serve, alone, while `bise serve smollm2` runs; localhost:8000 in their commands stands for its address. Commands run in bash from
the repository's root with `bise` on the PATH.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console test( smollm2| serve)?\n(.*?)^```", re.M | re.S)


def examples_of(text):
    """[(needs, line, command, expected exit, expected output)]; needs is empty, smollm2 or serve"""
    found = []
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(2)) + 1
        for part in re.split(r"^\$ ", block.group(2), flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            status = re.search(r"#\s*exit (\d+)\s*$", command)
            found.append(((block.group(1) or "").strip(), line, command, int(status.group(1)) if status else 0, output.rstrip("\n")))
    return found


def pattern_of(output):
    parts = []
    for line in output.split("\n") if output else []:
        parts.append(r"(?:[^\n]*\n)*" if line.strip() == "…" else ".*".join(map(re.escape, line.rstrip().split("…"))) + r"\n")
    return "".join(parts)


def run(folder, command):
    env = {k: v for k, v in os.environ.items() if not k.startswith("BISE_") or k == "BISE_HOME"}
    env["PATH"] = f"{folder}:{env.get('PATH', '')}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def main():
    arguments = sys.argv[1:]
    mode = next((a[2:] for a in arguments if a in ("--smollm2", "--serve")), "")
    folder, *files = [a for a in arguments if not a.startswith("--")]
    folder = pathlib.Path(folder).resolve()
    if mode:
        store = subprocess.run([ROOT / "scripts/store_folder.sh"], capture_output=True, text=True, check=True).stdout.strip()
        if not list(pathlib.Path(store, "models/smollm2").glob("*.gguf")):
            print("skipped: SmolLM2 is not in the local store; scripts/demo.sh --fetch-only puts it there")
            return 77
    if mode == "serve":
        sys.path.insert(0, str(ROOT / "python"))
        from serve_process import Server
        with Server(folder / "bise", "smollm2") as server:
            return check(folder, files, mode, f"127.0.0.1:{server.port}")
    return check(folder, files, mode, "localhost:8000")


def check(folder, files, mode, address):
    passed = failed = 0
    for name in files:
        for needs, line, command, want_status, want in examples_of((ROOT / name).read_text(encoding="utf-8")):
            if needs != mode:
                continue
            status, out, err = run(folder, command.replace("localhost:8000", address))
            trimmed = "".join(l.rstrip() + "\n" for l in out.splitlines())
            if status == want_status and re.fullmatch(pattern_of(want), trimmed):
                passed += 1
            else:
                failed += 1
                print(f"{name}:{line}: $ {command}\nexit {status}, expected {want_status}\nstdout:\n{out[:3000]}\n"
                      f"expected:\n{want}\nstderr:\n{err[-2000:]}")
    print(f"{passed} examples passed, {failed} failed")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
