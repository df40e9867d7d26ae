"""Words for the generator. Lists hold what a reader expects to see; `name_like` makes names that no list has, so that
copying is learnt and not a list."""

PEOPLE = ("Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Karl Lena Max Nora Oscar Paul Rosa Simon Tom Vera Mark Eva Peter "
          "Laura Martin Sofia Daniel Maria Robert Julia Andre Nina Victor Alice Marco Helen Adam Irene Leo Ruth").split()
CITIES = ("Paris London Berlin Rome Oslo Madrid Vienna Tokyo Geneva Bern Zurich Lisbon Prague Warsaw Dublin Athens Basel Milan "
          "Lyon Porto Turin Bonn Delhi Cairo Lima Boston Denver Dallas Kyoto Seoul").split()
COLOURS = "red green blue yellow black orange purple white brown pink".split()
THINGS = ("apple book chair table lamp cup door key box ball bag hat coin ring clock bottle map stone flower pen plate spoon "
          "bell boat card cake shirt shoe rope mirror").split()
PETS = "cat dog horse bird fish rabbit goat duck".split()
SUBJECTS = "Lunch Meeting Report Invoice Party Holiday Budget Travel Garden Music Project Training".split()
LANGUAGES = "English French German Italian Spanish Dutch Greek Polish Swedish Danish".split()
CURRENCIES = "EUR USD CHF GBP JPY SEK NOK CAD".split()
SKIES = "sun rain snow fog wind clouds".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
JOBS = "doctor teacher baker farmer driver painter singer nurse writer cook pilot judge".split()
ADJECTIVES = "old new small large warm cold quiet bright heavy light round long".split()
PLACES = "house garden street market station bridge school park kitchen office harbour forest".split()

_START = "b c d f g h k l m n p r s t v w z br dr fl gr kr pl st tr".split()
_VOWEL = "a e i o u".split()
_END = ["", "", "", "n", "r", "l", "s", "x", "m"]


def name_like(random):
    syllables = random.choice((2, 2, 3))
    word = "".join(random.choice(_START) + random.choice(_VOWEL) for _ in range(syllables)) + random.choice(_END)
    return word.capitalize()


def person(random):
    return random.choice(PEOPLE) if random.random() < 0.6 else name_like(random)


def city(random):
    return random.choice(CITIES) if random.random() < 0.6 else name_like(random)


class Rivals:
    """Persons, cities and names of one case that begin alike, so that the first letters do not tell which one is meant. Any of them
    may stand where a city or a person is wanted: what kind a word is does not tell what it is for either."""

    def __init__(self, random):
        self.starts = [random.choice(_START) + random.choice(_VOWEL) for _ in range(2)]

    def name_like(self, random):
        kind = random.random()
        if kind < 0.25:
            return random.choice(random.choice((PEOPLE, CITIES)))
        return (random.choice(self.starts) + name_like(random).lower()).capitalize() if kind < 0.6 else name_like(random)

    person = city = name_like


def distinct(random, make, count):
    """`count` different words from `make(random)`."""
    words = []
    while len(words) < count:
        word = make(random)
        if word not in words:
            words.append(word)
    return words


def number(random, digits):
    """A number with up to `digits` digits, its length drawn evenly, so that short numbers are seen too."""
    return random.randrange(10 ** random.randint(1, digits))
