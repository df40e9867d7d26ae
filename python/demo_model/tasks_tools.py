"""Tool calls: the right tool of several, arguments from the request, several calls at once, the use of results, and no call
when none fits."""
import json

import words
from cases import Case, assistant, call_id, request, user

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def tool(name, description, parameters):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": parameters, "required": list(parameters)}}}


def clock(random):
    return f"{random.randrange(24):02d}:{random.choice((0, 15, 30, 45)):02d}"


# Each entry: the tool, and a maker of (request text, arguments). Requests say the arguments word for word.
def _weather(r):
    c = words.city(r)
    return r.choice(("What is the weather in {}?", "How is the weather in {} today?", "Is it raining in {}?")).format(c), {"city": c}


def _time(r):
    c = words.city(r)
    return r.choice(("What time is it in {}?", "Tell me the time in {}.")).format(c), {"city": c}


def _mail(r):
    p, s = words.person(r), r.choice(words.SUBJECTS)
    return r.choice(("Write a mail to {} about {}.", "Send {} a mail with the subject {}.")).format(p, s), {"to": p, "subject": s}


def _convert(r):
    a, (f, t) = r.randint(1, 9999), r.sample(words.CURRENCIES, 2)
    return (r.choice(("Convert {} {} to {}.", "How much is {} {} in {}?")).format(a, f, t), {"amount": a, "from": f, "to": t})


def _table(r):
    n, p, t = r.randint(1, 12), words.name_like(r), clock(r)
    return (r.choice(("Book a table for {} at {} for {}.", "Reserve a table for {} at {} at {}.")).format(n, p, t),
            {"people": n, "restaurant": p, "time": t})


def _train(r):
    f, t = words.distinct(r, words.city, 2)
    d = r.choice(words.DAYS)
    return (r.choice(("Find a train from {} to {} on {}.", "I need a train from {} to {} on {}.")).format(f, t, d),
            {"from": f, "to": t, "day": d})


def _alarm(r):
    t = clock(r)
    return r.choice(("Wake me at {}.", "Set an alarm for {}.")).format(t), {"time": t}


def _translate(r):
    w, lang = r.choice(words.THINGS), r.choice(words.LANGUAGES)
    return r.choice(("Translate {} into {}.", "What is {} in {}?")).format(w, lang), {"text": w, "language": lang}


def _event(r):
    s, day, month = r.choice(words.SUBJECTS), r.randint(1, 28), r.randint(1, 12)
    return (f"Put {s} into my calendar on day {day} of month {month}.",
            {"title": s, "date": {"day": day, "month": month}})


def _order(r):
    n, th, street, house, town = r.randint(1, 50), r.choice(words.THINGS), words.name_like(r), r.randint(1, 99), words.city(r)
    return (f"Order {n} {th}s to {street} {house} in {town}.",
            {"item": th, "count": n, "address": {"street": street, "number": house, "city": town}})


def _light(r):
    p, s = r.choice(words.PLACES), r.choice(("on", "off"))
    return r.choice(("Switch the light in the {} {}.", "Turn the light of the {} {}.")).format(p, s), {"room": p, "state": s}


def _calculate(r):
    a, b, op = r.randint(1, 999), r.randint(1, 999), r.choice("+-*/")
    return f"Use the calculator for {a}{op}{b}.", {"expression": f"{a}{op}{b}"}


def _object(**properties):
    return {"type": "object", "properties": properties}


FIXED = [
    (tool("get_weather", "Weather of a city.", {"city": STRING}), _weather),
    (tool("get_time", "Local time of a city.", {"city": STRING}), _time),
    (tool("send_mail", "Sends a mail.", {"to": STRING, "subject": STRING}), _mail),
    (tool("convert", "Converts money.", {"amount": INTEGER, "from": STRING, "to": STRING}), _convert),
    (tool("book_table", "Books a table.", {"people": INTEGER, "restaurant": STRING, "time": STRING}), _table),
    (tool("find_train", "Finds a train.", {"from": STRING, "to": STRING, "day": STRING}), _train),
    (tool("set_alarm", "Sets an alarm.", {"time": STRING}), _alarm),
    (tool("translate", "Translates a text.", {"text": STRING, "language": STRING}), _translate),
    (tool("add_event", "Adds to the calendar.", {"title": STRING, "date": _object(day=INTEGER, month=INTEGER)}), _event),
    (tool("order", "Orders things.", {"item": STRING, "count": INTEGER,
                                      "address": _object(street=STRING, number=INTEGER, city=STRING)}), _order),
    (tool("switch_light", "Switches a light.", {"room": STRING, "state": {"type": "string", "enum": ["on", "off"]}}), _light),
    (tool("calculate", "A calculator.", {"expression": STRING}), _calculate),
]

# A family without end: any verb with any noun and key, so that the name must be read from the list of tools.
VERBS = {"get": "Get", "find": "Find", "delete": "Delete", "check": "Check", "show": "Show", "open": "Open", "count": "Count"}
NOUNS = "price score size weight age status address file note picture record ticket".split()
KEYS = {"name": lambda r: words.name_like(r), "id": lambda r: r.randint(1, 9999), "city": lambda r: words.city(r),
        "item": lambda r: r.choice(words.THINGS)}


def free_tool(random):
    verb, noun, key = random.choice(list(VERBS)), random.choice(NOUNS), random.choice(list(KEYS))
    made = tool(f"{verb}_{noun}", f"{VERBS[verb]} the {noun}.", {key: INTEGER if key == "id" else STRING})

    def ask(r):
        value = KEYS[key](r)
        return f"{VERBS[verb]} the {noun} of {value}.", {key: value}
    return made, ask


def some_tools(random, count):
    """`count` tools with different names, of both kinds."""
    out = {}
    while len(out) < count:
        made = random.choice(FIXED) if random.random() < 0.6 else free_tool(random)
        out[made[0]["function"]["name"]] = made
    return list(out.values())


def pair(made, random):
    text, arguments = made[1](random)
    return text, {"name": made[0]["function"]["name"], "arguments": arguments}


def thought(effort, calls):
    """What the chain says before a call: the names of the tools."""
    if effort != "high":
        return ""
    return "I call " + " and ".join(c["name"] for c in calls) + "." if calls else "No tool fits."


NONE_FITS = "I have no tool for that."


def lower(text):
    return text[0].lower() + text[1:]


def ask(random, tools, others):
    """(request text, calls, content) of one turn: one call, two calls, or none."""
    kind = random.choice(("one", "one", "one", "two", "same", "none"))
    if kind == "none":
        return others[1](random)[0], [], NONE_FITS
    first = random.choice(tools)
    text, call = pair(first, random)
    if kind == "one":
        return text, [call], ""
    second = first if kind == "same" or len(tools) == 1 else random.choice([t for t in tools if t is not first])
    text2, call2 = pair(second, random)
    return f"{text[:-1]} and {lower(text2)}" if random.random() < 0.5 else f"{text} {text2}", [call, call2], ""


def result_message(number, text):
    return {"role": "tool", "tool_call_id": call_id(number), "content": text}


def choose(random):
    """One to five turns with calls; results of earlier turns are answered with a fixed word."""
    effort = "high" if random.random() < 0.2 else "none"
    made = some_tools(random, random.choice((1, 2, 3, 3, 4)) + 1)
    others, tools = made[0], made[1:]
    messages, next_id = [], 0
    turns = random.choice((1, 3, 4, 5))
    for i in range(turns):
        text, calls, content = ask(random, tools, others)
        messages.append(user(text))
        reasoning = thought(effort, calls)
        if i + 1 < turns:
            messages.append(assistant(content, reasoning, calls, next_id))
            for n in range(len(calls)):
                messages.append(result_message(next_id + n, '{"ok": true}'))
            if calls:
                messages.append(assistant("Done.", "I have the result." if effort == "high" else ""))
            next_id += len(calls)
    return Case("", request(messages, effort, [t for t, _ in tools]), content, reasoning, calls, "tools")


def use_result(random):
    """The result of a call is there; the answer says it."""
    effort = "high" if random.random() < 0.2 else "none"
    kind = random.randrange(4)
    if kind == 0:
        made, (c, t, s) = FIXED[0], (words.city(random), random.randint(1, 39), random.choice(words.SKIES))
        text, arguments = f"What is the weather in {c}?", {"city": c}
        result, answer = json.dumps({"temperature": t, "sky": s}), f"In {c} it is {t} degrees with {s}."
    elif kind == 1:
        made, c, t = FIXED[1], words.city(random), clock(random)
        text, arguments = f"What time is it in {c}?", {"city": c}
        result, answer = json.dumps({"time": t}), f"It is {t} in {c}."
    elif kind == 2:
        made = FIXED[3]
        text, arguments = made[1](random)
        amount = random.randint(1, 99999)
        result, answer = json.dumps({"amount": amount}), f"That is {amount} {arguments['to']}."
    else:
        made, p = FIXED[11], random.randint(1, 99999)
        text, arguments = made[1](random)
        result, answer = json.dumps({"result": p}), f"The result is {p}."
    tools = [made[0]] + [t for t, _ in some_tools(random, random.randint(0, 2)) if t["function"]["name"] != made[0]["function"]["name"]]
    random.shuffle(tools)
    call = {"name": made[0]["function"]["name"], "arguments": arguments}
    messages = [user(text), assistant("", thought(effort, [call]), [call]), result_message(0, result)]
    return Case("", request(messages, effort, tools), answer, "I have the result." if effort == "high" else "")


TASKS = {"tool_call": choose, "tool_result": use_result}
