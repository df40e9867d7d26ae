"""Recall: facts told earlier, in a conversation or in a document, and saying so when they were not told."""
import words
from cases import Case, assistant, request, user

UNKNOWN = "The text does not say."


KINDS = 6


def fact(random, subject, kind=None):
    """(sentence, question, answer) about a subject; which of the `KINDS` is drawn when it is not given."""
    kind = random.randrange(KINDS) if kind is None else kind
    if kind == 0:
        v = str(random.randrange(1000, 10000))
        return f"The code of {subject} is {v}.", f"What is the code of {subject}?", v
    if kind == 1:
        v = words.city(random)
        return f"{subject} lives in {v}.", f"Where does {subject} live?", v
    if kind == 2:
        v = random.choice(words.JOBS)
        return f"{subject} works as a {v}.", f"What is the job of {subject}?", v
    if kind == 3:
        v = words.name_like(random)
        pet = random.choice(words.PETS)
        return f"The {pet} of {subject} is called {v}.", f"What is the {pet} of {subject} called?", v
    if kind == 4:
        v = random.choice(words.COLOURS)
        return f"The favourite colour of {subject} is {v}.", f"What is the favourite colour of {subject}?", v
    v = str(random.randint(2, 99))
    return f"{subject} is {v} years old.", f"How old is {subject}?", v


def filler(random):
    a, b = random.choice(words.ADJECTIVES), random.choice(words.ADJECTIVES)
    place, thing, day = random.choice(words.PLACES), random.choice(words.THINGS), random.choice(words.DAYS)
    return random.choice((
        f"The {place} is {a} and {b}.", f"On {day} the {thing} stood in the {place}.", f"A {a} {thing} lies near the {place}.",
        f"Nobody saw the {a} {thing} on {day}.", f"In the {place} there is a {b} {thing}."))


def chat(random):
    """Facts told in turns, asked later; one question in six is about something that was not said."""
    subjects = words.distinct(random, words.person, random.randint(2, 6))
    absent = subjects.pop() if len(subjects) > 2 else None
    told = [fact(random, s) for s in subjects]
    messages = []
    for sentence, _, _ in told:
        messages += [user(sentence), assistant("Noted.")]
    questions = random.sample(told, random.randint(1, len(told)))
    for i, (_, question, answer) in enumerate(questions):
        if absent and random.random() < 1 / 6:
            question, answer = fact(random, absent)[1], UNKNOWN
        messages.append(user(question))
        if i + 1 < len(questions):
            messages.append(assistant(answer))
    return Case("", request(messages), answer)


def document(min_sentences, max_sentences, questions=7, people=8):
    """Facts about up to `people` - 1 people among filler sentences; the document comes first, then questions about it."""
    def make(random):
        count = round(min_sentences * (max_sentences / min_sentences) ** random.random())
        subjects = words.distinct(random, words.person, random.randint(2, min(people, count)))
        absent = subjects.pop()
        told = [fact(random, s) for s in subjects]
        sentences = [filler(random) for _ in range(count - len(told))] + [s for s, _, _ in told]
        random.shuffle(sentences)
        messages = []
        asked = random.sample(told, random.randint(1, min(questions, len(told))))
        for i, (_, question, answer) in enumerate(asked):
            if random.random() < 1 / 6:
                question, answer = fact(random, absent)[1], UNKNOWN
            text = f"{' '.join(sentences)}\n\n{question}" if i == 0 else question
            messages.append(user(text))
            if i + 1 < len(asked):
                messages.append(assistant(answer))
        return Case("", request(messages), answer)
    return make


NEAR_KINDS = (0, 4, 5)   # the name stands two words before what is told of it, and two before the end of the question


def rivals(random):
    """Facts of one to three kinds about several people, nearly all asked for: the kind tells nothing, the person has to be found.
    For training: in a document that says little else of a kind, the kind alone finds the fact, and only that is learnt. Half are easy
    (one kind, well-known names, the same distance everywhere), for from the hard ones alone it is not learnt either."""
    easy = random.random() < 1 / 2
    kinds = [random.choice(NEAR_KINDS)] if easy else random.sample(range(KINDS), random.choice((1, 1, 2, 3)))
    name = (lambda r: r.choice(words.PEOPLE)) if easy else words.person
    facts = [fact(random, s, k) for s in words.distinct(random, name, random.randint(3, 6 if easy else 9)) for k in kinds]
    random.shuffle(facts)
    count = min(len(facts) - 1, random.randint(2, 9))
    told, untold = facts[:count], facts[count:]
    sentences = [s for s, _, _ in told] + [filler(random) for _ in range(0 if easy else random.choice((0, 0, 2, 6)))]
    random.shuffle(sentences)
    messages = []
    asked = random.sample(told, min(7, len(told)))
    for i, (_, question, answer) in enumerate(asked):
        if random.random() < 1 / 10:
            question, answer = random.choice(untold)[1], UNKNOWN
        messages.append(user(f"{' '.join(sentences)}\n\n{question}" if i == 0 else question))
        if i + 1 < len(asked):
            messages.append(assistant(answer))
    return Case("", request(messages), answer)


def refuse(random):
    """Half of the questions have no answer in the text: it is about another person, or about another fact of the same one."""
    subjects = words.distinct(random, words.person, random.randint(2, 4))
    kinds = [random.randrange(KINDS) for _ in subjects]
    told = [fact(random, s, k) for s, k in zip(subjects[1:], kinds[1:])]
    case = random.choice(("told", "told", "person", "fact"))
    if case == "told":
        _, question, answer = random.choice(told)
    elif case == "person":
        question, answer = fact(random, subjects[0])[1], UNKNOWN
    else:
        other = random.choice([k for k in range(KINDS) if k != kinds[1]])
        question, answer = fact(random, subjects[1], other)[1], UNKNOWN
    sentences = [s for s, _, _ in told] + [filler(random) for _ in range(random.randint(0, 2))]
    random.shuffle(sentences)
    return Case("", request([user(" ".join(sentences) + "\n\n" + question)]), answer)


def needle(tokens):
    """About `tokens` tokens of document (12 a sentence) and one question."""
    def make(random):
        return document(tokens / 12, tokens / 12, questions=1)(random)
    return make


# Minutes each on a slow machine: not where every task is asked many cases.
SLOW = ("recall_far", "recall_8k", "recall_16k")
TASKS = {"recall_chat": chat, "refuse": refuse, "recall_rivals": rivals, "recall_short": document(3, 40), "recall_1k": document(40, 90),
         "recall_long": document(90, 180), "recall_far": document(350, 1000, 30, 41), "recall_2k": needle(2000), "recall_8k": needle(8000), "recall_16k": needle(16000)}
