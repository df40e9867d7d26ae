#!/usr/bin/env python3
"""Runs the parts of a preset's suite whose programs or files have changed since they last passed.

    run_suite.py PRESET [--all]

A part is one test program, or the scripts of one subject (they ask the built program). What passed is kept in
build/PRESET-suite.json with a digest of what the part's result depends on. The last line is `counts: PASSED FAILED SKIPPED`, parts
that were not run again included.
"""
import collections
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES_OF_UNITS = ["tests/golden"]   # what test programs read
# What scripts read beside the built program, by subject; one that is not named reads all of it.
FILES_OF_SCRIPTS = ["tests", "scripts", "python", "docs", "src", "models", "README.md", "cmake"]
READS = {
    "script_layers": ["src", "tests", "bench", "fuzz", "scripts/check_layers.py"],
    "script_isa_symbols": ["scripts/check_isa_symbols.sh"],
    "script_golden_chat": ["tests/golden"],
    "script_golden_model": ["tests/golden", "python/engine_for_check.py"],
    "script_cli": ["tests/app", "tests/golden", "python", "models"],
    "script_demo_model": ["tests/golden", "python", "models"],
    "script_server": ["tests/server", "tests/golden", "python", "models"],
    "script_clients": ["tests/golden", "python", "models"],
}
# Some wait for sockets and disks: more at a time than there are cores.
TESTS_AT_A_TIME = 1 + (os.cpu_count() or 1)


@functools.cache
def digest_of_file(path):
    if not os.path.exists(path):   # one that was removed and not yet committed is still listed
        return ""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_of_files(paths):
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(f"{path}\n{digest_of_file(path)}\n".encode())
    return whole.hexdigest()


def tracked(folders):
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard", *folders], cwd=ROOT, capture_output=True, check=True).stdout
    return [str(ROOT / name.decode()) for name in listed.split(b"\0") if name]


def smollm2():
    """Names and sizes: the digest of the file was checked when it was fetched."""
    store = subprocess.run([ROOT / "scripts/store_folder.sh"], capture_output=True, text=True, check=True).stdout.strip()
    return sorted(f"{p} {p.stat().st_size}" for p in pathlib.Path(store, "models/smollm2").glob("*"))


def digests(build, parts):
    goldens = digest_of_files(f for f in tracked(FILES_OF_UNITS) if not f.endswith((".py", ".md")))   # scripts read those
    program = digest_of_files([str(build / "bise"), *map(str, build.glob("*.a")), str(ROOT / "tests/scripts.cmake")])
    out = {}
    for part in parts:
        if part.startswith("unit_"):
            out[part] = digest_of_files([str(build / "tests" / part.replace("unit_", "test_", 1))]) + goldens
        else:
            out[part] = program + digest_of_files(tracked(READS.get(part, FILES_OF_SCRIPTS)))
    if "script_smollm2" in out:
        out["script_smollm2"] += "".join(smollm2())
    return out


def ctest(preset, *options, **more):
    return subprocess.run(["ctest", "--preset", preset, *options], cwd=ROOT, text=True, **more)


def parts_of_tests(preset):
    """{name of a test: its part}"""
    listed = json.loads(ctest(preset, "--show-only=json-v1", stdout=subprocess.PIPE, check=True).stdout)
    found = {}
    for test in listed["tests"]:
        labels = next((p["value"] for p in test.get("properties", []) if p["name"] == "LABELS"), [])
        found[test["name"]] = next(label for label in labels if label.startswith(("unit_", "script_")))
    return found


def outcome(case):
    if case.get("status") == "run":
        return "passed"
    skipped = case.find("skipped")   # what could not be started is "not run" as well, for another reason
    return "skipped" if skipped is not None and skipped.get("message", "").startswith("SKIP_") else "failed"


def show(log, failed):
    """ctest's own summary; all that failed tests said, too."""
    keep = re.compile(r"Skipped|tests passed|Total Test time")
    drop = re.compile(r"^ *\d+/\d+ Test .* Passed|^ +Start +\d+:")
    lines = log.read_text(errors="replace").splitlines()
    print("\n".join([line for line in lines if not drop.search(line)][-300:] if failed else [line for line in lines if keep.search(line)]))


def main():
    preset, everything = sys.argv[1], "--all" in sys.argv
    build = ROOT / "build" / preset
    stamps, log, junit = build.with_name(f"{preset}-suite.json"), build.with_name(f"{preset}-ctest.log"), build / "ctest.xml"
    part_of = parts_of_tests(preset)
    parts = set(part_of.values())
    now = digests(build, parts)
    before = json.loads(stamps.read_text()) if stamps.exists() and not everything else {}
    kept = {p: before[p] for p in parts if p in before and before[p]["digest"] == now[p]}
    todo = parts - kept.keys()
    if kept:
        print("not run again, passed before with the same programs and files (FULL=1 runs all):", ", ".join(sorted(kept)))
    counts = {p: collections.Counter(v["counts"]) for p, v in kept.items()}
    if todo:
        chosen = ["-L", f"^({'|'.join(sorted(todo))})$"] if kept else []
        junit.unlink(missing_ok=True)
        with open(log, "w") as out:
            status = ctest(preset, "-j", str(TESTS_AT_A_TIME), "--output-junit", str(junit), *chosen,
                           stdout=out, stderr=subprocess.STDOUT).returncode
        cases = xml.etree.ElementTree.parse(junit).getroot().iter("testcase") if junit.exists() else []
        for case in cases:
            part = part_of.get(case.get("name"), "unknown")
            if part not in kept:   # else it only prepared something for another part
                counts.setdefault(part, collections.Counter())[outcome(case)] += 1
        for part in todo:
            if counts.get(part) and not counts[part]["failed"]:
                kept[part] = {"digest": now[part], "counts": dict(counts[part])}
        failed = sum(c["failed"] for c in counts.values())
        if status != 0 and not failed:   # ctest itself went wrong
            counts.setdefault("unknown", collections.Counter())["failed"] += 1
            kept = {}
        show(log, status != 0)
    stamps.write_text(json.dumps(kept, indent=1) + "\n")
    total = sum(counts.values(), collections.Counter())
    print("counts:", total["passed"], total["failed"], total["skipped"])
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
