"""Fresh weights that can already copy.

Calls, JSON and recall are made of copying: find where the last tokens stood before, say what followed. Attention learns that
late ("In-context Learning and Induction Heads", Olsson and others 2022), in a model this small later than all else: with random
weights a quarter of the copied tokens were right after 2.3 million tokens of training. So it is written into the start, and
training makes of it what it wants; before the first step three quarters of the tokens inside of copied words are right.

    embedding        128 content numbers, much the same ones for a word with a space before it and without, because what stands in
                     a sentence is repeated in quotes; 64 empty ones, 63 faint ones, one constant
    layer 0          two heads look one position back, two look two back (the constant, turned by one or two steps of RoPE's fast
                     pairs), and write 32 projections of the content found there into the empty numbers
    layers 2 and 3   two heads of each group compare the projections of their own token and of the one before with those, in the
                     pairs that RoPE turns slowly, and write the content of where they match: together all 128 numbers
    all other output matrices are zero, the final norm is small because the embedding is large and is the head too

What else layers 0 and 1 write into the content breaks it, so their MLPs learn as slowly as this attention (COPYING).
"""
import torch
import vocabulary

COPYING = tuple(f"language_model.layers.{part}." for part in ("0.self_attn", "2.self_attn", "3.self_attn", "0.mlp", "1.mlp"))
CONTENT, PREVIOUS, CONSTANT = 128, 64, 255
FAST_PAIRS = 8        # of the 16 of a head: those that YaRN leaves as they are
FINAL_NORM = 0.1
FAINT, CONSTANT_VALUE, ATTENTION_BACK, MATCH, WRITE_BACK, WRITE_FOUND, NOISE, SECOND = 0.3, 4.0, 10.0, 3.0, 0.5, 3.0, 0.1, 1.0
ALIKE = 0.85           # of the content of a word with a space before it and without


def _orthogonal(rows, columns, generator):
    q, _ = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), generator=generator))
    return q.T if rows <= columns else q


def _views(attention, config):
    """Weights as [group, head of the group, number of the head, input], K and V without the head; O as [output, group, ...]."""
    groups, size = config.num_key_value_heads, config.head_dim
    heads = config.num_attention_heads // groups
    return (attention.q_proj.weight.view(groups, heads, size, -1), attention.k_proj.weight.view(groups, size, -1),
            attention.v_proj.weight.view(groups, size, -1), attention.o_proj.weight.view(-1, groups, heads, size))


@torch.no_grad()
def copying_start(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text = model.model.language_model
    config, size = text.config, text.config.head_dim
    table = text.embed_tokens.weight
    table.zero_()
    table[:, :CONTENT] = torch.randn(len(table), CONTENT, generator=generator)
    for token, bare in vocabulary.without_space().items():
        own = table[token, :CONTENT].clone()
        table[token, :CONTENT] = ALIKE * table[bare, :CONTENT] + (1 - ALIKE ** 2) ** 0.5 * own
    table[:, CONTENT + PREVIOUS:CONSTANT] = FAINT * torch.randn(len(table), CONSTANT - CONTENT - PREVIOUS, generator=generator)
    table[:, CONSTANT] = CONSTANT_VALUE
    rms = float(table.square().mean(-1).sqrt().mean())   # the norm before attention divides by it
    text.norm.weight.fill_(FINAL_NORM)
    for layer in text.layers:
        layer.mlp.down_proj.weight.zero_()
        layer.self_attn.o_proj.weight.zero_()

    fast = torch.arange(FAST_PAIRS)
    angle = text.rotary_emb.inv_freq[fast]
    amplitude = ATTENTION_BACK ** 0.5 * rms / CONSTANT_VALUE
    back = _orthogonal(size, CONTENT, generator)
    q, k, v, o = _views(text.layers[0].self_attn, config)
    for group in range(len(k)):
        k[group] *= NOISE
        k[group, fast, CONSTANT] = amplitude
        v[group] = 0
        v[group, :, :CONTENT] = back
        turn = (group + 1) * angle
        for head in range(2):
            q[group, head] *= NOISE
            q[group, head, fast, CONSTANT] = amplitude * turn.cos()
            q[group, head, fast + size // 2, CONSTANT] = -amplitude * turn.sin()
            place = CONTENT + group * size + torch.arange(size)
            o[place, group, head, torch.arange(size)] = WRITE_BACK * rms

    slow = torch.cat([torch.arange(FAST_PAIRS, size // 2), torch.arange(FAST_PAIRS, size // 2) + size // 2])
    found = _orthogonal(CONTENT, CONTENT, generator).view(2, len(k), size, CONTENT)
    for n, number in enumerate((2, 3)):
        q, k, v, o = _views(text.layers[number].self_attn, config)
        for group in range(len(k)):
            one = _orthogonal(len(slow), size, generator) * MATCH * (size / len(slow)) ** 0.5
            two = _orthogonal(len(slow), size, generator) * MATCH * (size / len(slow)) ** 0.5 * SECOND
            k[group] *= NOISE
            k[group, slow] = 0
            k[group, slow, CONTENT:CONTENT + size] = one
            k[group, slow, CONTENT + size:CONTENT + 2 * size] = two
            v[group] = 0
            v[group, :, :CONTENT] = found[n, group]
            for head in range(2):
                q[group, head] *= NOISE
                q[group, head, slow] = 0
                q[group, head, slow, :CONTENT] = one @ back
                q[group, head, slow, CONTENT:CONTENT + size] = two
                o[:CONTENT, group, head, :] = found[n, group].T * WRITE_FOUND * rms
