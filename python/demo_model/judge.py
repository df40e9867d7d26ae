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


TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def follows(schema, value):
    """Is the value valid by a schema of the generator's kind (type, enum, properties, required, items)?"""
    if not isinstance(value, TYPES[schema["type"]]) or (schema["type"] == "integer" and isinstance(value, bool)):
        return False
    if value not in schema.get("enum", [value]) or not all(k in value for k in schema.get("required", ())):
        return False
    if schema["type"] == "object":
        return all(follows(schema["properties"][k], v) for k, v in value.items() if k in schema["properties"])
    return all(follows(schema["items"], v) for v in value) if schema["type"] == "array" else True


def valid_json(case, answer):
    """Is the answer to a JSON case valid by the schema told in it, whatever its values? None: no JSON was asked."""
    if case.judge != "json":
        return None
    told = next(m["content"].split("schema: ", 1)[1] for m in case.request["messages"] if "schema: " in m["content"])
    is_json, value = parsed(answer.get("content"))
    return is_json and follows(json.JSONDecoder().raw_decode(told)[0], value)


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
