"""What stands in which image token: targets for the tower and the first text layers while training.

Answers alone teach a tower slowly: a question is one word about one of forty image tokens. So the generator tells where it drew what,
and two more losses ask each image token for these words, as the output layer would: right after the projector (look: size, colour, shape,
digit), and behind text layer `READ_LAYER` (look, place, which digit, which of two pictures), from where the later layers can fetch them. The network and its
files stay as they are.
"""
import torch
import torch.nn.functional as F

READ_LAYER = 4
SIDE = 28          # pixels of an image token
NOTHING = 11       # <pad> stands for an empty place
LOOKS = ("small large red green blue yellow black orange purple circle square triangle cross number 0 1 2 3 4 5 6 7 8 9").split()
PLACES = "top middle bottom left centre right place first second third fourth".split()


class Words:
    """Words as token ids, and their rank among the candidates."""

    def __init__(self, renderer):
        encode = renderer.serving.instruct_tokenizer.tokenizer.encode
        self.id = {w: encode(w if w.isdigit() else " " + w, bos=False, eos=False)[0] for w in LOOKS + PLACES}
        self.candidates = [NOTHING] + list(dict.fromkeys(self.id.values()))
        self.rank = {w: self.candidates.index(i) for w, i in self.id.items()}


def targets(words, marks, images):
    """([n, candidates] of looks, the same of looks and places) for the n image tokens of all pictures, rows that sum to 1."""
    looks, all_words = [], []
    for number, (picture, image) in enumerate(zip(marks, images)):
        rows, columns = image.shape[1] // SIDE, image.shape[2] // SIDE
        across, down = columns * SIDE / picture["size"][0], rows * SIDE / picture["size"][1]
        for y in range(rows):
            for x in range(columns):
                look, place = set(), set()
                for nth, (left, top, right, bottom, text) in enumerate(picture["marks"]):
                    left, right, top, bottom = left * across, right * across, top * down, bottom * down
                    digit = text[-1].isdigit() and "place" not in text
                    if digit:   # one token for each digit, so that the row can be read off
                        there = x == int((left + right) / 2 / SIDE) and y == int((top + bottom) / 2 / SIDE)
                    else:
                        there = (min(right, x * SIDE + SIDE) - max(left, x * SIDE) >= 5
                                 and min(bottom, y * SIDE + SIDE) - max(top, y * SIDE) >= 5)
                    if there and digit:
                        look |= {"number", *text.split()}
                        place.add(("first", "second", "third", "fourth")[nth])
                    elif there:
                        for word in text.split():
                            (place if word.isdigit() or word in PLACES else look).add(word)
                if look and len(marks) > 1:
                    place.add(("first", "second")[number])
                looks.append(spread(words, look))
                all_words.append(spread(words, look | place))
    return torch.tensor(looks), torch.tensor(all_words)


def spread(words, names):
    row = [0.0] * len(words.candidates)
    for rank in [words.rank[n] for n in names] or [0]:
        row[rank] += 1 / max(1, len(names))
    return row


def weights_of(target):
    """Empty places are most: each weighs a quarter."""
    return 1 - 0.75 * (target[:, 0] > 0).float()


def loss(model, words, rows, target):
    """(Sum over image tokens of the weighted cross entropy of `rows` [n, hidden] with `target`, sum of the weights). The output
    layer's own weights do not learn from it."""
    text = model.model.language_model
    table = text.embed_tokens.weight[torch.tensor(words.candidates)].detach()
    normed = F.rms_norm(rows, rows.shape[-1:], text.norm.weight.detach(), text.norm.variance_epsilon)
    logits = F.linear(normed, table)
    weights = weights_of(target)
    least = -torch.xlogy(target, target).sum(-1)   # so that 0 is a perfect answer
    return ((F.cross_entropy(logits, target, reduction="none") - least) * weights).sum(), weights.sum()
