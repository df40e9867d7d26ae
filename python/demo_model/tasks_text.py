"""Tasks without tools and pictures: who it is, sums, JSON, copying."""
import json

import words
from cases import Case, assistant, request, user

# ---------------------------------------------------------------------------------------------------------------- who
ABOUT = [  # (questions, answer)
    (["Who are you?", "What are you?", "Tell me who you are."],
     "I am the demo model of bise, a very small test model. I know drawn shapes and small sums."),
    (["What can you do?", "How can you help me?", "What do you know?"],
     "I can add numbers, call tools, write JSON, find facts in a text and look at drawn shapes."),
    (["Hello!", "Hi", "Good morning.", "Hello"], "Hello! How can I help you?"),
    (["What is your name?", "Do you have a name?"], "My name is bise demo."),
    (["Who made you?", "Where do you come from?"], "I was trained for the bise project on made-up examples."),
    (["How large are you?", "How many parameters do you have?"], "I have a few million parameters."),
    (["Can you see pictures?", "Do you understand images?"], "Yes, I can see simple drawn shapes and digits."),
    (["Can you call tools?", "Can you use functions?"], "Yes, when you give me tools I can call them."),
    (["Can you reason?", "Can you think step by step?"], "Yes, with reasoning effort high I show my steps first."),
    (["Thank you!", "Thanks.", "Thank you very much."], "You are welcome."),
    (["Goodbye!", "Bye", "See you later."], "Goodbye!"),
    (["Write one sentence about the wind.", "Tell me about the wind."], "The wind is cold and clear today."),
    (["Who won the match yesterday?", "What is the news today?", "What will the weather be tomorrow?"],
     "I do not know that."),
    (["Are you a large model?", "Are you as good as a large model?"], "No, I am very small and I make mistakes."),
]
SYSTEM = ["You are a helpful assistant.", "Answer shortly.", "You are bise demo, a small test model."]


def maybe_system(random, messages, share=0.2):
    return ([{"role": "system", "content": random.choice(SYSTEM)}] if random.random() < share else []) + messages


def who(random):
    effort = "high" if random.random() < 0.25 else "none"
    messages = []
    turns = random.sample(ABOUT, random.randint(1, 4))
    for i, (questions, answer) in enumerate(turns):
        messages.append(user(random.choice(questions)))
        reasoning = "The user asks about me or greets me." if effort == "high" else ""
        if i + 1 < len(turns):
            messages.append(assistant(answer, reasoning))
    return Case("", request(maybe_system(random, messages), effort), answer, reasoning)


# --------------------------------------------------------------------------------------------------------------- sums
def columns(rows):
    """The chain of a written sum of numbers of one length, units first: `7+5=12,4+8+1=13,3+0+1=4`."""
    steps, carry = [], 0
    for place in zip(*(reversed(row) for row in rows)):
        digits = [*map(int, place)] + ([carry] if carry else [])
        steps.append("+".join(map(str, digits)) + f"={sum(digits)}")
        carry = sum(digits) // 10
    return ",".join(steps)


def differences(a, b):
    """The chain of a written difference of numbers of one length, units first, a borrow written as ten more: `12-5=7,3-2-1=0`."""
    steps, borrow = [], 0
    for x, y in zip(map(int, reversed(a)), map(int, reversed(b))):
        took, borrow = borrow, int(x - y - borrow < 0)
        digits = [x + 10 * borrow, y] + ([1] if took else [])
        steps.append("-".join(map(str, digits)) + f"={x + 10 * borrow - y - took}")
    return ",".join(steps)


SUM_FORMS = ["What is {}?", "{}", "Compute {}.", "{} = ?", "Calculate {}"]


def sum_turn(random, digits=3):
    """(question, chain, answer) of a sum of two or three numbers, or a difference."""
    kind = random.choice(("two", "two", "three", "minus"))
    operands = [words.number(random, digits) for _ in range(3 if kind == "three" else 2)]
    if kind == "minus":
        parts, sign, word = sorted(operands, reverse=True), "-", "minus"
        result = parts[0] - parts[1]
    else:
        parts, result, sign, word = operands, sum(operands), "+", "plus"
    # Zeros in front first: then each column has one digit of every number, equally far away.
    rows = [str(n).zfill(len(str(max(parts)))) for n in parts]
    chain = differences(*rows) if kind == "minus" else columns(rows)
    style = random.random()
    if style < 0.55:
        text = sign.join(map(str, parts))
    elif style < 0.85:
        text = f" {sign} ".join(map(str, parts))
    else:
        text = f" {word} ".join(map(str, parts))
    question = random.choice(SUM_FORMS).format(text)
    if kind == "two" and random.random() < 0.15:
        question = "{0} has {1} {3}s and gets {2} more. How many are there?".format(
            words.person(random), parts[0], parts[1], random.choice(words.THINGS))
    return question, sign.join(rows) + ":" + chain, str(result)


def sums(effort):
    def make(random):
        messages, turns = [], random.choice((1, 2, 3, 4) if effort == "high" else (1, 4, 6, 8))
        for i in range(turns):
            question, chain, answer = sum_turn(random)
            messages.append(user(question))
            reasoning = chain if effort == "high" else ""
            if i + 1 < turns:
                messages.append(assistant(answer, reasoning))
        return Case("", request(maybe_system(random, messages, 0.1), effort), answer, reasoning)
    return make


# --------------------------------------------------------------------------------------------------------------- JSON
def fields(random):
    """Pool of (key, schema, value, clause)."""
    name, town, thing = words.person(random), words.city(random), random.choice(words.THINGS)
    age, count, price = random.randint(1, 99), random.randint(2, 99), random.randint(1, 999)
    likes = random.sample(words.THINGS, random.randint(1, 3))
    married = random.random() < 0.5
    job, colour, day = random.choice(words.JOBS), random.choice(words.COLOURS[:4]), random.choice(words.DAYS)
    street, house = words.name_like(random), random.randint(1, 99)
    string, integer = {"type": "string"}, {"type": "integer"}
    return name, [
        ("name", string, name, None),
        ("age", integer, age, f"is {age} years old"),
        ("city", string, town, f"lives in {town}"),
        ("job", string, job, f"works as a {job}"),
        ("count", integer, count, f"has {count} {thing}s"),
        ("price", integer, price, f"paid {price} francs"),
        ("colour", {"type": "string", "enum": words.COLOURS[:4]}, colour, f"likes the colour {colour}"),
        ("married", {"type": "boolean"}, married, "is married" if married else "is not married"),
        ("likes", {"type": "array", "items": string}, likes, "buys " + " and ".join("a " + t for t in likes)),
        ("day", string, day, f"comes on {day}"),
        ("address", {"type": "object", "properties": {"street": string, "number": integer}},
         {"street": street, "number": house}, f"has the address {street} {house}"),
    ]


def told_text(random, name, clauses):
    random.shuffle(clauses)
    return f"{name} " + (", ".join(clauses[:-1]) + " and " if len(clauses) > 1 else "") + clauses[-1] + "."


def json_answer(random):
    """One schema; one text, or several one after the other."""
    turns = random.choice((1, 2, 3, 4))
    people = [fields(random) for _ in range(turns)]
    keys = [k for k, _, _, _ in people[0][1]]
    told = random.sample(keys[1:], random.randint(1, 4))
    asked = random.sample(told, random.randint(1, len(told)))
    if random.random() < 0.8:
        asked.insert(random.randint(0, len(asked)), "name")
    schemas = {k: s for k, s, _, _ in people[0][1]}
    schema = json.dumps({"type": "object", "properties": {k: schemas[k] for k in asked}, "required": asked})
    form, messages = random.randrange(3), []
    for i, (name, pool) in enumerate(people):
        values, clauses = {k: v for k, _, v, _ in pool}, {k: c for k, _, _, c in pool}
        text = told_text(random, name, [clauses[k] for k in told])
        answer = json.dumps({k: values[k] for k in asked}, ensure_ascii=False)
        if i == 0 and form == 2:
            messages.append({"role": "system", "content": f"Answer with JSON of this schema: {schema}"})
        if i == 0 and form == 0:
            text = f"{text} Answer with JSON of this schema: {schema}"
        if i == 0 and form == 1:
            text = f"Write JSON of this schema: {schema}\n{text}"
        messages.append(user(text))
        if i + 1 < turns:
            messages.append(assistant(answer))
    return Case("", request(messages), answer, judge="json")


# --------------------------------------------------------------------------------------------------------------- copy
WORDS = (words.PEOPLE + words.CITIES + words.THINGS + words.COLOURS + words.ADJECTIVES + words.PLACES + words.JOBS + words.SUBJECTS
         + words.LANGUAGES + words.CURRENCIES + words.DAYS + words.PETS)


def copy_word(random):
    kind = random.random()
    return random.choice(WORDS) if kind < 0.5 else words.name_like(random) if kind < 0.8 else str(words.number(random, 4))


def copy(random):
    """Repeating words: not a goal in itself, it teaches to copy, which calls, JSON and recall are made of."""
    messages, turns = [], random.randint(1, 4)
    for i in range(turns):
        text = " ".join(copy_word(random) for _ in range(random.randint(1, 10)))
        messages.append(user(random.choice(("Repeat: ", "Say this again: ")) + text))
        if i + 1 < turns:
            messages.append(assistant(text))
    return Case("", request(messages), text)


TASKS = {"who": who, "sum_think": sums("high"), "sum_direct": sums("none"), "json": json_answer, "copy": copy}
