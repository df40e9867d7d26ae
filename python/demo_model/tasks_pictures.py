"""Pictures: drawn shapes and digits. Count, colour, shape, position, relative size, digits, odd aspect ratios, two pictures."""
from cases import Case, assistant, request, user
from png import Canvas, SHAPES

COLOURS = ("red", "green", "blue", "yellow", "black", "orange", "purple")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
UNIT = 28   # pixels of one image token's side
# (columns, rows) of cells and the cell's side in image tokens; long strips are the odd aspect ratios
GRIDS = [((2, 2), 2), ((2, 2), 2), ((3, 2), 2), ((2, 3), 2), ((4, 1), 2), ((1, 4), 2), ((5, 1), 2)]


def place(columns, rows, x, y):
    """The words for a cell, e.g. `top left`; a strip has only one direction."""
    horizontal = {1: [""], 2: ["left", "right"], 3: list(COLUMNS)}.get(columns) or [f"place {i + 1}" for i in range(columns)]
    vertical = {1: [""], 2: ["top", "bottom"], 3: list(ROWS)}.get(rows) or [f"place {i + 1}" for i in range(rows)]
    return f"{vertical[y]} {horizontal[x]}".strip()


def scene(random, most=4):
    """(canvas, shapes in reading order): shapes of different (colour, shape), each in its own cell."""
    (columns, rows), tokens = random.choice(GRIDS)
    cell = tokens * UNIT
    # a third of the pictures are not whole image tokens large: they are resized on the way in
    cut = random.randint(1, 12) if random.random() < 0.3 else 0
    canvas = Canvas(columns * cell - cut, rows * cell - cut, random.choice(("white", "white", "gray")))
    count = random.randint(1, min(most, columns * rows))
    cells = sorted(random.sample(range(columns * rows), count))
    looks = random.sample([(c, s) for c in COLOURS for s in SHAPES], count)
    shapes = []
    for index, (colour, name) in zip(cells, looks):
        x, y, size = index % columns, index // columns, random.choice(("small", "large"))
        radius = random.randint(9, 11) if size == "small" else random.randint(18, 21)
        slack = max(0, cell // 2 - radius - 6)
        left = x * cell + cell // 2 + random.randint(-slack, slack) // 2 - cut // 2 - radius
        top = y * cell + cell // 2 + random.randint(-slack, slack) // 2 - cut // 2 - radius
        canvas.shape(name, colour, left + radius, top + radius, radius)
        where = place(columns, rows, x, y)
        canvas.marks.append([left, top, left + 2 * radius, top + 2 * radius, f"{size} {colour} {name} {where}"])
        shapes.append({"shape": name, "colour": colour, "size": size, "place": where, "x": x, "y": y})
    return canvas, shapes


def only(shapes, key):
    """Shapes whose value of `key` no other shape has."""
    values = [s[key] for s in shapes]
    return [s for s in shapes if values.count(s[key]) == 1]


def describe(shapes):
    return ", ".join(f"{s['size']} {s['colour']} {s['shape']} {s['place']}" for s in shapes)


def question(random, shapes):
    """(question, answer) about one scene, or None when it does not fit the drawn kind."""
    kind = random.choice(("count", "count_shape", "colour", "colour", "shape", "shape", "place", "place_shape", "size", "which_size",
                          "side", "at", "describe"))
    one = random.choice(shapes)
    if kind == "count":
        return "How many shapes are there?", str(len(shapes))
    if kind == "count_shape":
        name = random.choice(SHAPES)
        return f"How many {name}{'es' if name == 'cross' else 's'} are there?", str(sum(s["shape"] == name for s in shapes))
    if kind == "colour" and one in only(shapes, "shape"):
        return f"What colour is the {one['shape']}?", one["colour"]
    if kind == "shape" and one in only(shapes, "colour"):
        return f"What shape is {one['colour']}?", one["shape"]
    if kind == "place":
        return where(one)
    if kind == "place_shape" and one in only(shapes, "shape"):
        return f"Where is the {one['shape']}?", one["place"]
    if kind == "at":
        return what_is_at(one)
    if kind == "size":
        return f"Is the {one['colour']} {one['shape']} small or large?", one["size"]
    if kind == "describe":
        return "Describe the picture.", describe(shapes)
    if len(shapes) >= 2:
        a, b = random.sample(shapes, 2)
        name_a, name_b = f"{a['colour']} {a['shape']}", f"{b['colour']} {b['shape']}"
        if kind == "which_size" and a["size"] != b["size"]:
            return f"Which is larger, the {name_a} or the {name_b}?", name_a if a["size"] == "large" else name_b
        if kind == "side" and a["x"] != b["x"]:
            return side(a, b)
    return None


def where(one):
    return f"Where is the {one['colour']} {one['shape']}?", one["place"]


def what_is_at(one):
    return f"What is {one['place'] if one['place'].startswith('place') else 'at the ' + one['place']}?", f"{one['colour']} {one['shape']}"


def side(a, b):
    return (f"Is the {a['colour']} {a['shape']} left or right of the {b['colour']} {b['shape']}?",
            "left" if a["x"] < b["x"] else "right")


def which_has(what, key, value, pictures):
    inside = [any(s[key] == value for s in p) for p in pictures]
    return f"Which picture has {what}?", ["neither", "the first", "the second", "both"][inside[0] + 2 * inside[1]]


def ask(random, shapes, first=()):
    while True:
        made = question(random, shapes)
        if made and made not in first:
            return made


def picture(canvas):
    return {"type": "image_url", "image_url": {"url": canvas.url()}}


def conversation(random, pictures, turns):
    """The pictures with the first question, then the other questions."""
    effort = "high" if random.random() < 0.1 else "none"
    reasoning = "I look at the picture." if effort == "high" else ""
    messages = []
    for i, (text, answer) in enumerate(turns):
        content = [picture(p) for p in pictures] + [{"type": "text", "text": text}] if i == 0 else text
        messages.append(user(content))
        if i + 1 < len(turns):
            messages.append(assistant(answer, reasoning))
    marks = [{"size": [p.width, p.height], "marks": p.marks} for p in pictures]
    return Case("", request(messages, effort), turns[-1][1], reasoning, marks=marks)


def shapes(random):
    canvas, found = scene(random)
    turns = []
    for _ in range(random.choice((1, 4, 6, 8))):
        turns.append(ask(random, found))
    return conversation(random, [canvas], turns)


def digits(random):
    """One to four digits, in a row on a fitting canvas; no closer than image tokens are."""
    count, scale = random.choice((1, 2, 2, 3, 3, 4)), random.choice((4, 5, 6))
    step = max(UNIT, 6 * scale)
    width, height = UNIT * -(-(count * step + 8) // UNIT), UNIT * 2
    canvas = Canvas(width, height, random.choice(("white", "gray", "yellow")))
    colour = random.choice(("black", "blue", "red"))
    value = [random.randrange(10) for _ in range(count)]
    left = random.randint(3, max(3, width - count * step - 1))
    top = random.randint(2, height - 7 * scale - 2)
    for i, digit in enumerate(value):
        canvas.digit(digit, colour, left + i * step, top, scale)
        canvas.marks.append([left + i * step, top, left + i * step + 5 * scale, top + 7 * scale, f"{colour} {digit}"])
    turns = [(random.choice(("What number is written here?", "Read the number.", "Which number do you see?")), "".join(map(str, value)))]
    if random.random() < 0.4:
        turns.insert(random.randint(0, 1), ("What colour are the digits?", colour))
    return conversation(random, [canvas], turns)


def two(random):
    (a, first), (b, second) = scene(random, 3), scene(random, 3)
    turns = []
    for _ in range(random.choice((1, 3, 5))):
        kind = random.randrange(4)
        if kind == 0 and len(first) != len(second):
            turns.append(("Which picture has more shapes?", "the first" if len(first) > len(second) else "the second"))
        elif kind == 1:
            colour = random.choice(COLOURS)
            turns.append(which_has(f"something {colour}", "colour", colour, (first, second)))
        elif kind == 2:
            name = random.choice(SHAPES)
            turns.append(which_has(f"a {name}", "shape", name, (first, second)))
        else:
            n = random.randrange(2)
            turns.append((f"Describe the {('first', 'second')[n]} picture.", describe((first, second)[n])))
    return conversation(random, [a, b], turns)


def which(random):
    """What of two pictures goes wrong most, all of it asked: which has a colour or a shape. For training."""
    (a, first), (b, second) = scene(random), scene(random)
    asked = ([which_has(f"something {c}", "colour", c, (first, second)) for c in COLOURS]
             + [which_has(f"a {n}", "shape", n, (first, second)) for n in SHAPES])
    random.shuffle(asked)
    none = [t for t in asked if t[1] == "neither"][2:]
    return conversation(random, [a, b], [t for t in asked if t not in none])


def sides(random):
    """What of one picture goes wrong most: which shape is left of another, and which is where. For training."""
    canvas, found = scene(random)
    turns = [side(a, b) for a in found for b in found if a["x"] != b["x"]]
    turns = random.sample(turns, min(4, len(turns)))
    turns += [made(s) for s in found for made in (where, what_is_at)]
    random.shuffle(turns)
    return conversation(random, [canvas], turns[:8])


TASKS = {"picture": shapes, "picture_digits": digits, "picture_two": two, "picture_which": which, "picture_sides": sides}
