"""Cases -> batches -> loss. A step's cases are a function of (seed, step), so a resumed run sees the same data."""
import random

import torch

import cases
import lookups
import marks

PAD = 11
# How often each task is drawn (all but recall_*k, which `Curriculum` adds later).
SHARES = {"who": 2, "sum_think": 4, "sum_direct": 4, "json": 2, "copy": 1.5, "recall_chat": 2, "refuse": 2, "recall_short": 2,
          "tool_call": 4, "tool_result": 1, "picture": 5, "picture_digits": 2.5, "picture_two": 2}
LONG = {"recall_1k": 1.0, "recall_2k": 0.5, "recall_8k": 0.4, "recall_16k": 0.2}   # the last two only as a step's first


class Sample:
    """One rendered case; `weights[i]` is the weight of predicting token i."""

    def __init__(self, case, renderer, jump=None, words=None, find=None):
        self.task = case.task
        self.ids, self.learnt, self.images = renderer.whole(case)
        self.weights = turn_weights(self.learnt)
        self.positions = jumped(len(self.ids), jump) if jump else list(range(len(self.ids)))
        self.marks = marks.targets(words, case.marks, self.images) if words and self.images else None
        self.lookups = find(self.ids) if find and case.judge == "tools" else []


def turn_weights(learnt):
    """Each turn of n tokens weighs sqrt(n), so that one-word answers are not drowned by long ones."""
    weights, i = [0.0] * len(learnt), 0
    while i < len(learnt):
        if learnt[i]:
            end = i
            while end < len(learnt) and learnt[end]:
                end += 1
            weights[i:end] = [(end - i) ** -0.5] * (end - i)
            i = end
        else:
            i += 1
    return weights


def jumped(length, rng, most=15000):
    """Positions with up to three jumps: far distances are learnt on short texts."""
    cuts = sorted(rng.randrange(8, length) for _ in range(rng.randint(1, 3))) if length > 16 else []
    total, out, shift = rng.randrange(most), [], 0
    for i in range(length):
        while cuts and i >= cuts[0]:
            cuts.pop(0)
            step = rng.randrange(total - shift) if cuts and total > shift else max(0, total - shift)
            shift += step
        out.append(i + shift)
    return out


def samples_of_step(seed, step, shares, budget, renderer, tasks, words=None, find=None):
    """Samples with about `budget` tokens together; `words` (marks.Words) and `find` (lookups.Lookups) add what the further losses need."""
    rng = random.Random(f"{seed}/step/{step}")
    names, weights = list(shares), list(shares.values())
    out, tokens, index = [], 0, 0
    while tokens < budget:
        task = rng.choices(names, weights)[0]
        case = cases.make(task, f"{seed}/{step}", index, tasks)
        jump = rng if task.startswith(("recall", "refuse")) and rng.random() < 0.3 else None
        sample = Sample(case, renderer, jump, words, find)
        if tokens and tokens + len(sample.ids) > budget * 1.5:   # a long document would blow up a started step
            index += 1
            continue
        out.append(sample)
        tokens += len(sample.ids)
        index += 1
    return out


def micro_batches(samples, most):
    """Samples of like length together; each batch has at most `most` padded tokens (or one sample)."""
    out, batch = [], []
    for sample in sorted(samples, key=lambda s: len(s.ids)):
        if batch and len(sample.ids) * (len(batch) + 1) > most:
            out.append(batch)
            batch = []
        batch.append(sample)
    return out + [batch]


def image_features(model, images, most_patches=512):
    """Rows for every image, in order. The tower's mask is quadratic in all patches of a call, so calls are kept small."""
    out, group, patches = [], [], 0

    def flush():
        if group:
            sizes = torch.tensor([[i.shape[1], i.shape[2]] for i in group])
            height, width = sizes.max(0).values.tolist()
            pixels = torch.zeros(len(group), 3, height, width)
            for n, image in enumerate(group):
                pixels[n, :, :image.shape[1], :image.shape[2]] = torch.as_tensor(image)
            out.extend(model.model.get_image_features(pixel_values=pixels, image_sizes=sizes, return_dict=True).pooler_output)
    for image in images:
        count = image.shape[1] * image.shape[2] // 196
        if group and patches + count > most_patches:
            flush()
            group, patches = [], 0
        group.append(image)
        patches += count
    flush()
    return out


def forward(model, batch, words=None):
    """(logits, targets, weights, owner) at the learnt places of all samples; owner is the sample's number in the batch. With `words` also
    the losses of hidden places {name: (sum, count)}: of image tokens (marks.py) and of names of arguments (lookups.py), where there are any."""
    longest = max(len(s.ids) for s in batch)
    ids = torch.full((len(batch), longest), PAD)
    positions = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for n, s in enumerate(batch):
        ids[n, :len(s.ids)] = torch.tensor(s.ids)
        positions[n, :len(s.ids)] = torch.tensor(s.positions)
        weights[n, :len(s.ids)] = torch.tensor(s.weights)
    embeds = model.get_input_embeddings()(ids)
    images = [i for s in batch for i in s.images]
    if images:
        rows = torch.cat(image_features(model, images)).to(embeds.dtype)
        embeds = embeds.masked_scatter((ids == 10).unsqueeze(-1), rows)
    marked, read = [s.marks for s in batch if s.images] if words else [], []
    if marked:
        layer = model.model.language_model.layers[marks.READ_LAYER]
        hook = layer.register_forward_hook(lambda _m, _i, out: read.append(out[0] if isinstance(out, tuple) else out))
    wanted = [(n, lookup) for n, s in enumerate(batch) for lookup in s.lookups] if words else []
    watch = lookups.Watch(model) if wanted else None
    # A mask of ones (padding is on the right, after all that counts): causal attention without a mask tensor, and jumps in
    # the positions are not taken for packed sequences.
    hidden = model.model.language_model(inputs_embeds=embeds, position_ids=positions, attention_mask=torch.ones_like(ids),
                                        use_cache=False).last_hidden_state
    place = weights[:, 1:] > 0
    logits = model.lm_head(hidden[:, :-1][place])
    owner = torch.arange(len(batch)).unsqueeze(1).expand_as(place)[place]
    answers = logits, ids[:, 1:][place], weights[:, 1:][place], owner
    if not words:
        return answers
    more = {}
    if watch:
        watch.close()
        more["lookups"] = watch.loss(wanted)
    if marked:
        hook.remove()
        looks, places = (torch.cat(t) for t in zip(*marked))
        more |= {"looks": marks.loss(model, words, rows, looks), "places": marks.loss(model, words, read[0][ids == 10], places)}
    return *answers, more
