#!/usr/bin/env python3
"""Reads the includes below src/ and compares them with the floors of the house (docs/ARCHITECTURE.md).

    check_layers.py [ROOT]           prints one line per fault, exit status 1 when there is any
    check_layers.py --self-test      shows that each rule finds what it forbids
"""
import pathlib
import re
import sys
import tempfile

# folder -> what it may include: whole folders, or single headers where only one room is open to it.
MAY_INCLUDE = {
    "base": [],
    "tensor": ["base"],
    "text": ["base"],
    "io": ["base", "tensor"],
    "backend": ["base", "tensor"],
    "model": ["base", "tensor", "io", "backend"],
    "engine": ["base", "text", "backend", "model"],
    "chat": ["base", "text", "engine", "model/image.h", "io/gguf.h"],  # gguf.h: a tokenizer may live in a GGUF
    "server": ["base", "text", "engine", "chat", "model/image.h"],
    "app": ["base", "tensor", "text", "io", "backend", "model", "engine", "chat", "server"],
}
# header -> the only files below src/ that may include it (regular expressions on the path).
ONLY_FROM = {
    r"nlohmann/.*": r"base/json\.h",
    r"base/json\.h": r".*\.cpp|app/.*\.h",  # 2 s of compile time; no header of a floor below app hands it on
    r"CLI/.*": r"app/.*\.cpp",
    # 5 s of compile time each: two files and their headers speak to the network
    r"boost/.*": r"server/http_.*\.(cpp|h)",
    r"openssl/.*": r"server/api_keys\.cpp",
    r"prometheus/.*": r"server/metrics\.cpp",
    r"curl/.*": r"app/bench_serve_client\.cpp|server/image_fetcher\.cpp",
    r"llguidance\.h": r"server/llguidance_compiler\.cpp",
    r"server/http_(connection|stream)\.h": r"server/http_.*\.(cpp|h)",
    r"spdlog/.*": r"app/.*\.cpp|base/log\.cpp",
    r"(histedit|editline/.*)(\.h)?": r"app/.*\.cpp",
    r"(jpeglib|png|gif_lib|webp/.*)(\.h)?": r"model/.*\.cpp",
    r"backend/cpu/.*\.inl": r"backend/cpu/isa_.*\.cpp",
    r"backend/cpu/simd_.*\.h": r"backend/cpu/(isa_.*\.cpp|.*\.inl|simd_.*\.h)",
    r"cuda_runtime\.h": r"backend/cuda/device_cuda\.cu",
    r"backend/cuda/.*\.cuh": r"backend/cuda/.*\.cuh?",
    r".*intrin\.h": r"backend/cpu/(isa_.*\.cpp|.*\.inl|simd_.*\.h)|app/machine\.cpp|backend/cpu/cpu_features\.cpp",
    # cpu_memory: huge pages for weights; cpu_features: asks the system for tile registers
    r"(sys/mman|sys/stat|fcntl|unistd|sched|pthread)\.h":
        r"base/(file|memory_nodes|thread_pool|read_queue|read_ahead)\.cpp|backend/cpu/cpu_(memory|features)\.cpp|app/.*\.cpp",
    r"liburing\.h": r"base/read_queue\.cpp",
    r"regex": r"(?!)",
    r"iostream": r".*\.cpp",
}
# No JSON and no strings of users in the engine.
NEVER_IN = {"engine": r"base/json\.h"}
# what -> pattern in code without comments and strings, and the files where it is allowed.
ONLY_IN = {
    "main()": (r"^\s*int\s+main\s*\(", r"app/main\.cpp"),
    "exit": (r"\b(?:std::|::)?(?:_?exit|_Exit|quick_exit)\s*\(", r"app/.*"),
    "abort": (r"\b(?:std::|::)?abort\s*\(", r"base/error\.h|app/.*"),
    "getenv": (r"\b(?:secure_)?getenv\s*\(", r"app/.*"),
    "printing": (r"\bstd::(?:cout|cerr|clog|printf|puts|putchar)\b|\b(?:f?printf|f?puts)\s*\(", r"app/.*|base/error\.h"),
    "throw": (r"\bthrow\b", r"(?!)"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
TO_BLANK = re.compile(r'//[^\n]*|/\*.*?\*/|R"\(.*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def faults_of(path, text):
    """`path` is relative to src/. Yields (line, fault)."""
    folder = path.split("/")[0]
    if folder not in MAY_INCLUDE:
        yield 1, f"the folder {folder} is not in the table of check_layers.py"
        return
    for match in INCLUDE.finditer(text):
        kind, header = match.groups()
        line = text.count("\n", 0, match.start(2)) + 1
        target = header.split("/")[0]
        if kind == '"':
            if target not in MAY_INCLUDE:
                yield line, f'"{header}": ours are included by their path below src/, others in <>'
            elif target != folder and target not in MAY_INCLUDE[folder] and header not in MAY_INCLUDE[folder]:
                yield line, f'{folder} may not include "{header}"'
        for pattern, allowed in ONLY_FROM.items():
            if re.fullmatch(pattern, header) and not re.fullmatch(allowed, path):
                yield line, f"{header} may only be included from {allowed}"
        if re.fullmatch(NEVER_IN.get(folder, "(?!)"), header):
            yield line, f"{folder} may never include {header}"
    code = TO_BLANK.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
    for what, (pattern, allowed) in ONLY_IN.items():
        if re.fullmatch(allowed, path):
            continue
        for match in re.finditer(pattern, code, re.M):
            yield code.count("\n", 0, match.end()) + 1, f"{what} is only allowed in {allowed}"


def check(root):
    """Prints the faults; returns how many, and how many files were read."""
    faults = files = 0
    for file in sorted((root / "src").rglob("*")):
        if file.suffix not in (".h", ".cpp", ".inl", ".cu", ".cuh"):
            continue
        files += 1
        path = file.relative_to(root / "src").as_posix()
        for line, fault in faults_of(path, file.read_text(encoding="utf-8")):
            print(f"src/{path}:{line}: {fault}")
            faults += 1
    return faults, files


def self_test():
    bad = [
        ("base/x.h", '#include "tensor/dtype.h"'), ("tensor/x.cpp", '#include "io/gguf.h"'),
        ("text/x.cpp", '#include "chat/request.h"'), ("io/x.h", '#include "backend/backend.h"'),
        ("backend/x.cpp", '#include "model/model.h"'), ("model/x.cpp", '#include "text/tekken.h"'),
        ("engine/x.cpp", '#include "base/json.h"'), ("engine/x.h", '#include "chat/chat_types.h"'),
        ("chat/x.cpp", '#include "model/model.h"'), ("chat/x.cpp", '#include "io/checkpoint.h"'),
        ("model/x.h", '#include "base/json.h"'), ("io/x.cpp", "#include <nlohmann/json.hpp>"),
        ("backend/cpu/cpu_backend.cpp", '#include "backend/cpu/matmul.inl"'),
        ("backend/cpu/cpu_pack.cpp", '#include "backend/cpu/simd_avx2.h"'),
        ("backend/cpu/cpu_pack.cpp", "#include <immintrin.h>"), ("text/x.cpp", "#include <regex>"),
        ("io/x.h", "#include <iostream>"), ("chat/x.cpp", "#include <CLI/App.hpp>"),
        ("io/x.cpp", '#include "gguf.h"'), ("surprise/x.cpp", ""),
        ("server/api.cpp", "#include <boost/asio.hpp>"), ("app/x.cpp", '#include "server/http_connection.h"'),
        ("chat/x.cpp", '#include "server/api.h"'), ("server/x.h", '#include "base/json.h"'),
        ("io/x.cpp", "int main() {}"), ("io/x.cpp", "  std::exit(1);"), ("io/x.cpp", 'getenv("X");'),
        ("io/x.cpp", 'std::printf("x");'), ("io/x.cpp", "std::cerr << 1;"), ("io/x.cpp", "throw 1;"),
    ]
    good = [
        ("base/json.h", "#include <nlohmann/json.hpp>"), ("io/x.cpp", '#include "base/json.h"\n#include "tensor/dtype.h"'),
        ("backend/cpu/isa_avx2.cpp", '#include "backend/cpu/matmul.inl"\n#include "backend/cpu/simd_avx2.h"'),
        ("chat/x.cpp", '#include "model/image.h"\n#include "io/gguf.h"'),
        ("app/main.cpp", 'int main() { std::exit(std::getenv("X") == nullptr); }'),
        ("io/x.cpp", '// exit(1), throw, std::cout\nauto s = "getenv(x)"; std::snprintf(b, 1, "x"); int domain(int);'),
    ]
    wrong = [f"not found: {path}: {text}" for path, text in bad if not list(faults_of(path, text))]
    wrong += [f"found without cause: {path}: {fault}" for path, text in good for fault in faults_of(path, text)]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "src/base").mkdir(parents=True)
        (root / "src/base/x.h").write_text('#pragma once\n#include "app/npy.h"\n')
        if check(root) != (1, 1):
            wrong.append("a fault in a file was not found")
    print("\n".join(wrong) or f"{len(bad)} forbidden and {len(good)} allowed examples judged as they should be")
    return bool(wrong)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    faults, files = check(root)
    print(f"{files} files, {faults} faults")
    return faults > 0 or files == 0


if __name__ == "__main__":
    sys.exit(main())
