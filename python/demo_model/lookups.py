"""Where the names and the strings of a call are to be looked up: targets for a few heads of attention while training.

Which name an argument has is said far away, in the entry of the tool that the call names. Two things have to be found for one token of
the answer, and answers alone did not teach it: after 12 million tokens of calls the model still guessed by the kind of the value where
tools share their words (13 of 100 names wrong). So one more loss says it step by step: at the name of an argument, in an entry and in a
call, two heads look at the tokens of the tool's name; in two later layers a head looks from the call to the entry, where it finds the
same tool's name. The network and its files stay as they are.

A string of a call is copied from the request, where its tokens are often others: " Mitus" is " Mit" "us", and after a quote "M" "it" "us".
Heads that copy look for the token that was said last and do not find it: 2 of 100 such tokens were wrong, of others 0.2. So two heads look
from each token whose own or whose last token is cut differently to the one in the request that has the next letter. They learn to; the answers did
not become better by it (README.md).
"""
import bisect
import collections
import itertools
import re

import torch

GATHER, MATCH = ((1, 0), (2, 7)), ((4, 1), (5, 1))   # (layer, head): such as looked nowhere in particular there
SPELL = ((2, 3), (5, 2))   # these looked at such places already, at one in five and one in two
TOOL = re.compile(r'"function": \{"name": "(\w+)".*?"properties": \{"')
CALL = re.compile(r'\[TOOL_CALLS\](\w+)\[ARGS\]\{"')
ARGUMENTS = re.compile(r'\[ARGS\](\{.*?\})(?=\[TOOL_CALLS\]|</s>)')
STRING = re.compile(r': "([^"\\]+)"')


class Lookups:
    """Finds the places in samples; `renderer` knows the text of tokens."""

    def __init__(self, renderer):
        self._piece = renderer.serving.instruct_tokenizer.tokenizer.id_to_piece
        self._pieces = {}

    def __call__(self, ids):
        """[(heads, place, places to look at)]: in calls the place before the argument's name, in entries the name itself."""
        pieces = [self._pieces.get(i) or self._pieces.setdefault(i, self._piece(i)) for i in ids]
        ends = list(itertools.accumulate(map(len, pieces)))
        text = "".join(pieces)

        def found(pattern):
            for m in pattern.finditer(text):
                yield m[1], list(range(bisect.bisect_right(ends, m.start(1)), bisect.bisect_left(ends, m.end(1)) + 1)), m.end()
        entries = {tool: (name, bisect.bisect_right(ends, end)) for tool, name, end in found(TOOL)}
        out, called = [], set()
        for tool, name, end in found(CALL):
            at = bisect.bisect_left(ends, end)
            if tool in entries and ids[at + 1] == ids[entries[tool][1]]:
                called.add(tool)
                out += [(GATHER, at, name), (MATCH, at, [entries[tool][1]])]
        out += [(GATHER, entries[tool][1], entries[tool][0]) for tool in entries if tool in called]
        return out + [(SPELL, place, [source]) for place, source in spelled(pieces, ends, text)]


def spelled(pieces, ends, text):
    """(place before a token, token with its first letter) for tokens of a call's strings that are cut differently in the question, or come
    after such; of strings that stand there once."""
    for call in ARGUMENTS.finditer(text):
        asked = text.rfind("[INST]", 0, call.start())
        question = text[asked:text.find("[/INST]", asked)]
        for string in STRING.finditer(text, *call.span(1)):
            found = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(string[1])}(?!\w)", question)]
            if len(found) != 1:
                continue
            here, there = string.start(1), asked + found[0]
            last = False
            for token in range(bisect.bisect_right(ends, here), bisect.bisect_left(ends, string.end(1)) + 1):
                begin = ends[token] - len(pieces[token])
                source = bisect.bisect_right(ends, max(begin, here) - here + there)
                cut = pieces[token].lstrip() != pieces[source].lstrip() or begin < here
                if begin > here and (cut or last):
                    yield token - 1, source
                last = cut


class Watch:
    """While open, takes from the heads' layers what their attention is made of."""

    def __init__(self, model):
        self._layers = {n: model.model.language_model.layers[n].self_attn for n, _ in GATHER + MATCH + SPELL}
        self._seen = {}
        self._handles = [a.register_forward_pre_hook(lambda _module, _positional, named, n=n: self._seen.update({n: named}),
                                                     with_kwargs=True) for n, a in self._layers.items()]

    def close(self):
        for handle in self._handles:
            handle.remove()

    def loss(self, wanted):
        """Sum over [(sample, (heads, place, places to look at))] and over the heads of what the attention from the place is away from
        one spread evenly over those to look at (Kullback-Leibler, nats), and the number of terms."""
        by_head = collections.defaultdict(list)
        for sample, (heads, place, targets) in wanted:
            for head in heads:
                by_head[head].append((sample, place, targets))
        total = sum(self._loss(layer, head, rows) for (layer, head), rows in by_head.items())
        return total, sum(map(len, by_head.values()))

    def _loss(self, layer, head, rows):
        a, named = self._layers[layer], self._seen[layer]
        hidden = named["hidden_states"]
        cos, sin = (x.expand(len(hidden), -1, -1) for x in named["position_embeddings"])
        size, group = a.head_dim, head // a.num_key_value_groups

        def turned(x, *where):   # RoPE in halves, as transformers' rotate_half
            low, high = x.chunk(2, dim=-1)
            return x * cos[where] + torch.cat((-high, low), dim=-1) * sin[where]
        sample, place = (torch.tensor(x) for x in list(zip(*rows))[:2])
        query = turned(a.q_proj(hidden[sample, place])[:, head * size:(head + 1) * size], sample, place)
        keys = turned(a.k_proj(hidden)[..., group * size:(group + 1) * size], slice(None))
        scores = torch.einsum("pd,ptd->pt", query.float(), keys.expand(len(hidden), -1, -1)[sample].float()) * a.scaling
        scores = scores.masked_fill(torch.arange(hidden.shape[1]) > place.unsqueeze(1), float("-inf"))
        target = torch.zeros_like(scores)
        for n, (_, _, targets) in enumerate(rows):
            target[n, targets] = 1 / len(targets)
        least = -torch.xlogy(target, target).sum()   # so that 0 is a perfect spread
        seen = torch.where(target > 0, scores, 0.0)   # 0 times minus infinity is no number
        return (scores.logsumexp(-1) - (target * seen).sum(-1)).sum() - least
