#!/usr/bin/env python3
"""Goldens for chat encoding with tokenizer version v3, made with mistral_common (Apache-2.0).

    make_chat_v3.py        writes tests/golden/own/chat_v3.json

The schema is that of tests/golden/chat/encode.json. The tokenizer file is the one of that folder made v3: no list of
special tokens (the loader's own list applies), no settings builder, image patches of 16 pixels without merging.
"""

import gzip
import importlib.util
import json
import pathlib
import tempfile
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("make", ROOT / "tests/golden/chat/make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
system, user, assistant, call, result, text = make.system, make.user, make.assistant, make.call, make.result, make.text
A, B = "aaaaaaaaa", "bbbbbbbbb"


def write_v3(path):
    data = json.loads(gzip.open(ROOT / "tests/golden/chat/tekken.json.gz").read())
    data["config"]["version"] = "v3"
    for key in ("special_tokens", "model_settings_builder", "image"):
        del data[key]
    data["multimodal"] = {"image_patch_size": 16, "max_image_size": 1024}
    path.write_text(json.dumps(data))


def requests():
    yield "one question", dict(messages=[user("Where is Lyon?")])
    yield "system before the last user text", dict(messages=[system("Teach."), user("Lyon?"), assistant("France. "), user("Porto?")])
    yield "two systems", dict(messages=[system("One"), system([text("Two"), text(""), text("2b")]), user("a")])
    yield "empty system", dict(messages=[system(""), user("a")])
    yield "system only", dict(messages=[system("Alone")])
    yield "system between users", dict(messages=[user("a"), system("S"), user("b")])
    yield "assistant first", dict(messages=[assistant("Welcome"), user("Hey")])
    yield "users merged", dict(messages=[user("a"), user(""), user([text("b"), text("c")])])
    yield "tools before the last user", dict(messages=[user("1+2?"), assistant("3"), user("+1?")], tools=[make.ADD, make.NOTE])
    yield "call and JSON result", dict(messages=[user("1+2?"), assistant(None, [call(A, "add", "{\"x\":1.50,\"y\":2}")]), result(A, "{\"sum\":3.0}")], tools=[make.ADD])
    yield "result as text", dict(messages=[user("q"), assistant("", [call(A, "add", "")]), result(A, "not {json")])
    yield "result empty", dict(messages=[user("q"), assistant("", [call(A, "add", None)]), result(A, "")])
    yield "result number", dict(messages=[user("q"), assistant("", [call(A, "add", "7")]), result(A, "1e5")])
    yield "result as chunks", dict(messages=[user("q"), assistant("", [call(A, "add", "{}")]), result(A, [text("{\"a\""), text(": 1}")])])
    yield "two calls, results swapped", dict(messages=[user("q"), assistant(None, [call(A, "add", "{}"), call(B, "add", "x=1")]), result(B, "4"), result(A, "2"), user("and?")])
    yield "calls and answer", dict(messages=[user("q"), assistant(None, [call(A, "add", "{}")]), result(A, "2"), assistant("two  "), user("and?")], tools=[make.ADD])
    yield "call and content", dict(messages=[user("q"), assistant("Adding.", [call(A, "add", "{}")]), result(A, "2")])
    yield "neighbouring content and call", dict(messages=[user("q"), assistant("Adding."), assistant(None, [call(A, "add", "{}")]), result(A, "2")])
    yield "long id", dict(messages=[user("q"), assistant(None, [call("call_123", "add", "{}")]), result("call_123", "2")])
    yield "result without id", dict(messages=[user("q"), assistant(None, [call(A, "add", "{}")]), {"role": "tool", "content": "2", "tool_call_id": None}])
    yield "result missing", dict(messages=[user("q"), assistant(None, [call(A, "add", "{}")]), user("never mind")])
    yield "thinking", dict(messages=[user("q"), assistant([{"type": "thinking", "thinking": "t"}, text("a")]), user("b")])
    yield "prefix", dict(messages=[user("Alphabet"), assistant("a b ", prefix=True)])
    yield "effort", dict(messages=[user("q")], reasoning_effort="high")
    yield "picture", dict(messages=[system("S"), user([text("What?"), make.image(40, 20)])])
    yield "picture between texts", dict(messages=[system("S"), user([text("a"), make.image(17, 16), text("b")])])
    yield "large picture", dict(messages=[user([make.image(2048, 30), text("b")])])
    yield "picture in a result", dict(messages=[user("q"), assistant(None, [call(A, "add", "{}")]), result(A, [make.image(20, 20)])])
    yield "look-alikes", dict(messages=[system("[/INST]"), user("</s>[TOOL_CALLS]"), assistant("[INST]"), user("<s>")])


def main():
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tekken.json"
        write_v3(path)
        reference = make.Reference(path)
    cases = make.make_encode({"v3": reference}, [(name, "v3", body) for name, body in requests()])
    for case in cases:  # the reference counts merged patches of 28 pixels; v3 has patches of 16
        case.pop("image_grid", None)
    head = {"made_with": "mistral_common " + make.importlib.metadata.version("mistral_common")}
    out = ROOT / "tests/golden/own"
    out.mkdir(exist_ok=True)
    make.dump(out / "chat_v3.json", head, cases)


if __name__ == "__main__":
    main()
