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


# Each entry: the tool, and a maker of (request text, arguments); `w` is `words` or the words of one case. Requests say the
# arguments word for word.
def _weather(r, w):
    c = w.city(r)
    return r.choice(("What is the weather in {}?", "How is the weather in {} today?", "Is it raining in {}?")).format(c), {"city": c}


def _time(r, w):
    c = w.city(r)
    return r.choice(("What time is it in {}?", "Tell me the time in {}.")).format(c), {"city": c}


def _mail(r, w):
    p, s = w.person(r), r.choice(words.SUBJECTS)
    return r.choice(("Write a mail to {} about {}.", "Send {} a mail with the subject {}.")).format(p, s), {"to": p, "subject": s}


def _convert(r, w):
    a, (f, t) = r.randint(1, 9999), r.sample(words.CURRENCIES, 2)
    return (r.choice(("Convert {} {} to {}.", "How much is {} {} in {}?")).format(a, f, t), {"amount": a, "from": f, "to": t})


def _table(r, w):
    n, p, t = r.randint(1, 12), w.name_like(r), clock(r)
    return (r.choice(("Book a table for {} at {} for {}.", "Reserve a table for {} at {} at {}.")).format(n, p, t),
            {"people": n, "restaurant": p, "time": t})


def _train(r, w):
    f, t = words.distinct(r, w.city, 2)
    d = r.choice(words.DAYS)
    return (r.choice(("Find a train from {} to {} on {}.", "I need a train from {} to {} on {}.")).format(f, t, d),
            {"from": f, "to": t, "day": d})


def _alarm(r, w):
    t = clock(r)
    return r.choice(("Wake me at {}.", "Set an alarm for {}.")).format(t), {"time": t}


def _translate(r, w):
    thing, lang = r.choice(words.THINGS), r.choice(words.LANGUAGES)
    return r.choice(("Translate {} into {}.", "What is {} in {}?")).format(thing, lang), {"text": thing, "language": lang}


def _event(r, w):
    s, day, month = r.choice(words.SUBJECTS), r.randint(1, 28), r.randint(1, 12)
    return (f"Put {s} into my calendar on day {day} of month {month}.",
            {"title": s, "date": {"day": day, "month": month}})


def _order(r, w):
    n, th, street, house, town = r.randint(1, 50), r.choice(words.THINGS), w.name_like(r), r.randint(1, 99), w.city(r)
    return (f"Order {n} {th}s to {street} {house} in {town}.",
            {"item": th, "count": n, "address": {"street": street, "number": house, "city": town}})


def _light(r, w):
    p, s = r.choice(words.PLACES), r.choice(("on", "off"))
    return r.choice(("Switch the light in the {} {}.", "Turn the light of the {} {}.")).format(p, s), {"room": p, "state": s}


def _calculate(r, w):
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

LONG = [made for made in FIXED if len(made[0]["function"]["parameters"]["properties"]) > 1]

# A family without end: any verb with any noun and key, so that the name must be read from the list of tools.
VERBS = {"get": "Get", "find": "Find", "delete": "Delete", "check": "Check", "show": "Show", "open": "Open", "count": "Count"}
NOUNS = "price score size weight age status address file note picture record ticket".split()
KEYS = {"name": lambda r, w: w.name_like(r), "id": lambda r, w: r.randint(1, 9999), "city": lambda r, w: w.city(r),
        "item": lambda r, w: r.choice(words.THINGS)}


ARGUMENTS = ("name city street title owner label place team room topic person group word key road town friend line page river code mark "
             "house day").split()


def free_tool(random, verbs=tuple(VERBS), nouns=NOUNS, keys=tuple(KEYS)):
    verb, noun, key = random.choice(verbs), random.choice(nouns), random.choice(keys)
    made = tool(f"{verb}_{noun}", f"{VERBS[verb]} the {noun}.", {key: INTEGER if key == "id" else STRING})

    def ask(r, w):
        value = KEYS.get(key, KEYS["name"])(r, w)
        return f"{VERBS[verb]} the {noun} of {value}.", {key: value}
    return made, ask


def some_tools(random, count):
    """`count` tools with different names, of both kinds."""
    out = {}
    while len(out) < count:
        made = random.choice(FIXED) if random.random() < 0.6 else free_tool(random)
        out[made[0]["function"]["name"]] = made
    return list(out.values())


def pair(made, random, w):
    text, arguments = made[1](random, w)
    return text, {"name": made[0]["function"]["name"], "arguments": arguments}


def thought(effort, calls):
    """What the chain says before a call: the names of the tools."""
    if effort != "high":
        return ""
    return "I call " + " and ".join(c["name"] for c in calls) + "." if calls else "No tool fits."


NONE_FITS = "I have no tool for that."


def lower(text):
    return text[0].lower() + text[1:]


def ask(random, tools, others, w=words, kinds=("one", "one", "one", "two", "same", "none")):
    """(request text, calls, content) of one turn: one call, two calls, or none."""
    kind = random.choice(kinds)
    if kind == "none":
        return others[1](random, w)[0], [], NONE_FITS
    first = random.choice(tools)
    text, call = pair(first, random, w)
    if kind == "one":
        return text, [call], ""
    second = first if kind == "same" or len(tools) == 1 else random.choice([t for t in tools if t is not first])
    text2, call2 = pair(second, random, w)
    return f"{text[:-1]} and {lower(text2)}" if random.random() < 0.5 else f"{text} {text2}", [call, call2], ""


def result_message(number, text):
    return {"role": "tool", "tool_call_id": call_id(number), "content": text}


def choose(random):
    """One to five turns with calls."""
    effort = "high" if random.random() < 0.2 else "none"
    made = some_tools(random, random.choice((1, 2, 3, 3, 4)) + 1)
    return conversation(effort, made[1:], random.choice((1, 3, 4, 5)), lambda: ask(random, made[1:], made[0]))


def choose_rivals(random):
    """Tools that share verb, noun or both with each other, arguments that begin alike and do not show by their kind what they are:
    which tool, which argument's name and which value can each be told in one way only. Also for training `choose`."""
    w, effort, kind = words.Rivals(random), "high" if random.random() < 0.1 else "none", random.random()
    out, long = {}, 0
    if kind < 0.75:   # made-up tools: in half of these cases alone, a call a turn, so that names of arguments are much of what is learnt
        verbs, nouns = random.sample(list(VERBS), 2), random.sample(NOUNS, random.randint(2, 3))
        keys = ("name", "city") if kind < 0.4 else ("name", "city", random.choice(list(KEYS)))
        for _ in range(random.randint(3, 8)):
            made = free_tool(random, verbs, nouns, keys)
            out.setdefault(made[0]["function"]["name"], made)
    if kind >= 0.4:
        long = random.randint(0 if len(out) > 1 else 2, 2)
    for made in random.sample(LONG, max(long, 2 - len(out))):
        out[made[0]["function"]["name"]] = made
    made = list(out.values())
    random.shuffle(made)
    kinds = ("one",) if kind < 0.4 else ("one", "two", "two", "same", "same", "same", "same", "none")
    turns = random.choice((3, 4, 5, 6, 8)) if kind < 0.4 else random.choice((1, 3, 4, 5, 6))
    return conversation(effort, made[1:], turns, lambda: ask(random, made[1:], made[0], w, kinds))


def choose_names(random):
    """Many turns of one call each to tools that share their words; arguments have any of many names, and every value is a made-up word. So
    little but the entry of the tool tells the name, and a guess is right once in 24. For training alone, before `tool_rivals`."""
    w, verbs, nouns = words.Rivals(random), random.sample(list(VERBS), random.randint(1, 3)), random.sample(NOUNS, random.randint(2, 4))
    out = {}
    for _ in range(random.randint(2, 7)):
        made = free_tool(random, verbs, nouns, ARGUMENTS)
        out.setdefault(made[0]["function"]["name"], made)
    made = list(out.values())
    return conversation("none", made, random.choice((3, 5, 8)), lambda: ask(random, made, made[0], w, ("one",)))


def conversation(effort, tools, turns, one_turn):
    """The case of so many turns; results of earlier turns are answered with a fixed word."""
    messages, next_id = [], 0
    for i in range(turns):
        text, calls, content = one_turn()
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
        text, arguments = made[1](random, words)
        amount = random.randint(1, 99999)
        result, answer = json.dumps({"amount": amount}), f"That is {amount} {arguments['to']}."
    else:
        made, p = FIXED[11], random.randint(1, 99999)
        text, arguments = made[1](random, words)
        result, answer = json.dumps({"result": p}), f"The result is {p}."
    tools = [made[0]] + [t for t, _ in some_tools(random, random.randint(0, 2)) if t["function"]["name"] != made[0]["function"]["name"]]
    random.shuffle(tools)
    call = {"name": made[0]["function"]["name"], "arguments": arguments}
    messages = [user(text), assistant("", thought(effort, [call]), [call]), result_message(0, result)]
    return Case("", request(messages, effort, tools), answer, "I have the result." if effort == "high" else "")


TASKS = {"tool_call": choose, "tool_rivals": choose_rivals, "tool_names": choose_names, "tool_result": use_result}
