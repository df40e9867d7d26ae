#!/usr/bin/env python3
"""The draft head of the demo model in the published EAGLE form: trained on a trained model, exported in Mistral's layout.

    draft.py train DIR [--steps N] [--threads N]     reads DIR/checkpoint.pt; DIR/draft.pt is written and gone on from
    draft.py export DIR OUT                          OUT/params.json and OUT/consolidated.safetensors (BF16)

The head is h = eagle_linear(concat(embedding of the next token, the model's hidden state after its last norm)), two ordinary
decoder layers with the same YaRN, a norm; embedding and output are the model's. At position p it sees the hidden state of p and
the token of p + 1, and says token p + 2; its own hidden state takes the model's place in the next draft step. It learns the
model's choice and its hidden state, in two draft steps, at the places where the assistant speaks.
"""
import argparse
import copy
import json
import os
import random
import time

import torch
from torch import nn

import architecture
import batches
import cases
import train
from optimizer import Optimizer
from render import Renderer

LAYERS, HELD_OUT = 2, 64


class Draft(nn.Module):
    def __init__(self):
        super().__init__()
        from transformers import Ministral3Config, Ministral3Model
        text = copy.deepcopy(architecture.CONFIG["text_config"])
        text.pop("model_type")
        text |= {"num_hidden_layers": LAYERS, "vocab_size": 1, "pad_token_id": None, "bos_token_id": None,
                 "eos_token_id": None}   # it has no embedding of its own
        torch.manual_seed(1)
        hidden = text["hidden_size"]
        self.eagle_linear = nn.Linear(2 * hidden, hidden, bias=False)
        self.body = Ministral3Model(Ministral3Config(**text))
        self.body.embed_tokens.requires_grad_(False)

    def forward(self, embeds, hidden, positions, mask):
        """[batch, n, hidden] each -> normalised hidden states [batch, n, hidden]."""
        x = self.eagle_linear(torch.cat([embeds, hidden], -1))
        return self.body(inputs_embeds=x, position_ids=positions, attention_mask=mask, use_cache=False).last_hidden_state


@torch.no_grad()
def target_states(model, batch):
    """Embeddings, hidden states and positions of a batch as the model sees them, and its weights of places."""
    seen = {}
    hook = model.model.language_model.register_forward_pre_hook(lambda m, a, k: seen.update(k), with_kwargs=True)
    after = model.model.language_model.register_forward_hook(lambda m, a, out: seen.update(hidden=out.last_hidden_state))
    batches.forward(model, batch)
    hook.remove()
    after.remove()
    weights = torch.zeros(seen["position_ids"].shape)
    for n, s in enumerate(batch):
        weights[n, :len(s.weights)] = torch.tensor(s.weights)
    return seen["inputs_embeds"], seen["hidden"], seen["position_ids"], weights


def losses(model, draft, batch, steps=2):
    """(loss, places, agreeing places of the first step): cross entropy with the model's choice, and distance to its state."""
    embeds, hidden, positions, weights = target_states(model, batch)
    loss, places, agree, state = 0.0, 0, 0, hidden
    for step in range(steps):
        # Step s at place p: token p + 1 + s and the state of p + s (own for s > 0) -> state of p + 1 + s.
        length = hidden.shape[1] - 1 - step
        state = draft(embeds[:, 1 + step:], state[:, :length], positions[:, step:-1], torch.ones(hidden.shape[0], length, dtype=torch.long))
        place = weights[:, 1 + step:] > 0
        with torch.no_grad():
            wanted = hidden[:, 1 + step:][place]
            choice = model.lm_head(wanted).argmax(-1)
        logits = model.lm_head(state[place])
        loss = loss + nn.functional.cross_entropy(logits, choice, reduction="sum") + nn.functional.smooth_l1_loss(state[place], wanted,
                                                                                                              reduction="sum") * 0.05
        if step == 0:
            places, agree = int(place.sum()), int((logits.argmax(-1) == choice).sum())
    return loss, places, agree


def load_model(directory):
    model = architecture.build()
    model.load_state_dict(torch.load(f"{directory}/checkpoint.pt", weights_only=True)["average"])
    return model.requires_grad_(False).eval()


def agreement(model, draft, renderer, tasks):
    """Share of held-out answer tokens that the first draft step says as the model does."""
    rng, counted, agreed = random.Random(1), 0, 0
    names = list(batches.SHARES)
    with torch.no_grad():
        for i in range(HELD_OUT):
            sample = batches.Sample(cases.make(rng.choice(names), train.HELD_OUT_SEED, i, tasks), renderer)
            _, places, agree = losses(model, draft, [sample], steps=1)
            counted, agreed = counted + places, agreed + agree
    return agreed / counted


def run(o):
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    model, draft, renderer, tasks = load_model(o.dir), Draft(), Renderer(f"{o.dir}/tekken.json"), cases.registry()
    optimizer, step, path = Optimizer(draft), 0, f"{o.dir}/draft.pt"
    if os.path.exists(path):
        state = torch.load(path, weights_only=True)
        draft.load_state_dict(state["draft"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    saved = time.time()
    while step < o.steps:
        samples = batches.samples_of_step(train.TRAIN_SEED + 1, step, batches.SHARES, o.budget, renderer, tasks)
        total = sum(sum(s.learnt) for s in samples)
        for batch in batches.micro_batches(samples, o.budget):
            loss, _, _ = losses(model, draft, batch)
            (loss / total).backward()
        torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        scale = min(1.0, (step + 1) / 40) * max(0.05, 1 - step / o.steps)
        optimizer.step(4e-3 * scale, 3e-3 * scale)
        step += 1
        if step == o.steps or time.time() - saved > 600:
            torch.save({"draft": draft.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path + ".part")
            os.replace(path + ".part", path)
            saved = time.time()
        if step % 100 == 0 or step == o.steps:
            print(json.dumps({"step": step, "agreement": round(agreement(model, draft, renderer, tasks), 4)}), flush=True)


def export(directory, out):
    import export as _   # puts the folder of make.py on the path
    import make   # tests/golden/model/make.py: names and row order of Mistral's layout
    from export import numbers, write_json
    from safetensors.torch import save_file
    v, tensors = numbers(), {}
    for name, w in torch.load(f"{directory}/draft.pt", weights_only=True)["draft"].items():
        if "embed_tokens" in name:
            continue
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            w = make.interleave(w, v["heads" if "q_proj" in name else "kv"])
        name = name.removeprefix("body.")
        for old, new in make.RENAME:
            name = name.replace(old, new)
        tensors[name] = w.to(torch.bfloat16).contiguous()
    os.makedirs(out, exist_ok=True)
    save_file(tensors, f"{out}/consolidated.safetensors")
    rope = architecture.ROPE
    write_json(f"{out}/params.json", {
        "dim": v["hidden"], "n_layers": LAYERS, "head_dim": v["head_dim"], "hidden_dim": v["ffn"], "n_heads": v["heads"],
        "n_kv_heads": v["kv"], "norm_eps": 1e-5, "vocab_size": architecture.VOCABULARY, "tied_embeddings": False,
        "model_type": "transformer", "rope_theta": rope["rope_theta"], "max_position_embeddings": rope["max_position_embeddings"],
        "sliding_window": None, "moe": None, "llama_4_scaling": None,
        "yarn": {"factor": rope["factor"], "original_max_position_embeddings": rope["original_max_position_embeddings"],
                 "beta": rope["beta_fast"], "alpha": rope["beta_slow"], "apply_scale": True}})
    print(f"{sum(t.numel() for t in tensors.values())} parameters in {len(tensors)} tensors")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("what", choices=("train", "export"))
    p.add_argument("dir")
    p.add_argument("out", nargs="?")
    p.add_argument("--steps", type=int, default=2000)
    p.add_argument("--budget", type=int, default=3000, help="tokens of a step")
    p.add_argument("--threads", type=int, default=1)
    o = p.parse_args()
    run(o) if o.what == "train" else export(o.dir, o.out)


if __name__ == "__main__":
    main()
