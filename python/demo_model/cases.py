#!/usr/bin/env python3
"""What the demo model learns and is judged by: cases made by rule from a seed, no foreign text.

    cases.py SEED COUNT [TASK ...]      COUNT cases of each task as JSON lines (all tasks when none is named)

A case is a chat-completions request, the answer that is right, and how an answer is judged:

    text    content equal after trimming
    json    content parses as JSON and equals the expected value
    tools   the same calls in the same order: names equal, arguments equal as JSON

Case (seed, task, index) is always the same, on every machine. Earlier assistant turns of a conversation are right answers
too and are learnt from; only the last one is judged.
"""
import json
import random
import sys
from dataclasses import asdict, dataclass, field


@dataclass
class Case:
    task: str
    request: dict                   # messages, tools, reasoning_effort
    content: str = ""
    reasoning: str = ""             # what stands in [THINK] under effort high; not judged
    tool_calls: list = field(default_factory=list)   # [{"name", "arguments": {...}}]
    judge: str = "text"
    marks: list = field(default_factory=list)   # of each picture: {"size": [w, h], "marks": [[left, top, right, bottom, words]]}

    def answer(self):
        """The answer as an assistant message of the same wire form."""
        return assistant(self.content, self.reasoning, self.tool_calls)


def assistant(content="", reasoning="", calls=(), first_id=0):
    message = {"role": "assistant", "content": content}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [{"id": call_id(first_id + i), "type": "function",
                                  "function": {"name": c["name"], "arguments": json.dumps(c["arguments"], ensure_ascii=False)}}
                                 for i, c in enumerate(calls)]
    return message


def call_id(number):
    return f"call{number:05d}"


def user(text):
    return {"role": "user", "content": text}


def request(messages, effort="none", tools=None):
    out = {"messages": messages}
    if tools:
        out["tools"] = tools
    if effort != "none":
        out["reasoning_effort"] = effort
    return out


def registry():
    import tasks_pictures
    import tasks_recall
    import tasks_text
    import tasks_tools
    return {**tasks_text.TASKS, **tasks_recall.TASKS, **tasks_tools.TASKS, **tasks_pictures.TASKS}


def make(task, seed, index, tasks=registry):
    """The case; a task's maker gets its own stream of random numbers."""
    made = (tasks() if callable(tasks) else tasks)[task](random.Random(f"{seed}/{task}/{index}"))
    made.task = task
    return made


def main():
    seed, count, names = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    tasks = registry()
    for task in names or tasks:
        for index in range(count):
            print(json.dumps(asdict(make(task, seed, index, tasks)), ensure_ascii=False))


if __name__ == "__main__":
    main()
