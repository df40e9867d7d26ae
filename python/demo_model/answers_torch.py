#!/usr/bin/env python3
"""Greedy answers of transformers in float32, as JSON lines that `evaluate.py --compare` reads.

    answers_torch.py MODEL OUT [--cases N] [--tasks a,b] [--seed S]

MODEL is a folder in Hugging Face layout. Pixels come from mistral-common.
"""
import argparse
import json

import torch

import batches
import cases
import tasks_recall
from evaluate import HELD_OUT_SEED
from render import EOS, Renderer


@torch.no_grad()
def greedy(model, ids, images, most):
    """Token ids up to </s> and with it, as `bise probe generate` gives them; one token at a time with a KV cache."""
    ids = torch.tensor([ids])
    embeds = model.get_input_embeddings()(ids)
    if images:
        embeds = embeds.masked_scatter((ids == 10).unsqueeze(-1), torch.cat(batches.image_features(model, images)))
    state = model.model.language_model(inputs_embeds=embeds, use_cache=True)
    out = []
    while len(out) < most:
        token = int(model.lm_head(state.last_hidden_state[:, -1]).argmax())
        out.append(token)
        if token == EOS:
            break
        state = model.model.language_model(input_ids=torch.tensor([[token]]), past_key_values=state.past_key_values, use_cache=True)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--cases", type=int, default=100)
    p.add_argument("--tasks", default="")
    p.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    p.add_argument("--max-tokens", type=int, default=200)
    o = p.parse_args()
    from transformers import AutoModelForImageTextToText
    torch.set_num_threads(1)
    model = AutoModelForImageTextToText.from_pretrained(o.model, dtype=torch.float32).eval()
    renderer, tasks = Renderer(f"{o.model}/tekken.json"), cases.registry()
    with open(o.out, "w", encoding="utf-8") as f:
        for task in o.tasks.split(",") if o.tasks else [t for t in tasks if t not in tasks_recall.SLOW]:
            for i in range(o.cases):
                ids, images = renderer.prompt(cases.make(task, o.seed, i, tasks))
                f.write(json.dumps({"task": task, "index": i, "ids": greedy(model, ids, images, o.max_tokens)}) + "\n")


if __name__ == "__main__":
    main()
