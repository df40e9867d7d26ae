"""Is an answer right? An answer is what the chat floor gives: content, reasoning_content, tool_calls."""
import json


def parsed(text):
    try:
        return True, json.loads(text)
    except (TypeError, ValueError):
        return False, None


def same(a, b):
    """Equal as JSON: 1 and 1.0 are equal, true and 1 are not, the order of keys is free."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def right(case, answer):
    """`case`: a Case; `answer`: {"content", "tool_calls": [{"function": {"name", "arguments": JSON text}}]}, as `bise probe parse`
    and the chat API give it."""
    content, calls = (answer.get("content") or "").strip(), answer.get("tool_calls") or []
    if case.judge == "json":
        valid, value = parsed(content)
        return valid and not calls and same(value, json.loads(case.content))
    if len(calls) != len(case.tool_calls) or content != case.content.strip():
        return False
    for want, got in zip(case.tool_calls, calls):
        got = got.get("function", got)
        valid, arguments = parsed(got["arguments"])
        if got["name"] != want["name"] or not valid or not same(arguments, want["arguments"]):
            return False
    return True
