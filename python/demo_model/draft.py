#!/usr/bin/env python3
"""The draft head of the demo model in the published EAGLE form: params.json and consolidated.safetensors, FP8, no embedding and
no output of its own.

    draft.py train MODEL DIR [--steps N] [--bfloat16]   MODEL is a folder of export.py (bf16 or fp8); DIR/draft.pt is written
                                                        and gone on from; --head OUT: a published head is the start
    draft.py export MODEL DIR OUT                       DIR/draft.pt -> OUT
    draft.py measure MODEL OUT [--cases N]              tokens for each pass of MODEL, on held-out cases

The head is h = eagle_linear(concat(embedding of the next token, the model's hidden state after its last norm)), two ordinary
decoder layers with the same YaRN, a norm; embedding and output are the model's. At position p it sees the hidden state of p and
the token of p + 1, and says token p + 2; its own hidden state takes the model's place in the next draft step, one position on.
It learns the model's distribution and its hidden state, in three draft steps, at the places where the assistant speaks.
"""
import argparse
import collections
import copy
import json
import os
import time

import torch
from torch import nn

import architecture
import batches
import cases
import export
import train
import workers
from optimizer import Optimizer
from render import Renderer

LAYERS, STEPS = 2, 3
SIZES = export.numbers() | {"layers": LAYERS, "vision": None}


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
        del self.body.embed_tokens

    def forward(self, embeds, hidden, positions):
        """[batch, n + STEPS, hidden] twice, [batch, n + STEPS] -> states of each draft step, [batch, n, hidden].

        All places are drafted from at once: the keys of draft step s at place p are what the model's states gave up to p (step 0),
        then the draft's own of steps 1 to s at p alone."""
        from transformers import DynamicCache
        n = embeds.shape[1] - STEPS
        own, earlier = torch.eye(n, dtype=torch.bool), torch.ones(n, n, dtype=torch.bool).tril()
        cache, state, states = DynamicCache(config=self.body.config), hidden[:, :n], []
        for step in range(STEPS):
            x = self.eagle_linear(torch.cat([embeds[:, 1 + step:1 + step + n], state], -1))
            mask = torch.cat([earlier] + [own] * step, 1).expand(len(embeds), 1, -1, -1)
            state = self.body(inputs_embeds=x, position_ids=positions[:, step:step + n], attention_mask=mask, past_key_values=cache,
                              use_cache=True).last_hidden_state
            states.append(state)
        return states


@torch.no_grad()
def target_states(model, batch):
    """Embeddings, hidden states and positions of a batch as the model sees them, and where the assistant speaks."""
    seen = {}
    hook = model.model.language_model.register_forward_pre_hook(lambda m, a, k: seen.update(k), with_kwargs=True)
    after = model.model.language_model.register_forward_hook(lambda m, a, out: seen.update(hidden=out.last_hidden_state))
    batches.forward(model, batch)
    hook.remove()
    after.remove()
    spoken = torch.zeros(seen["position_ids"].shape, dtype=torch.bool)
    for n, s in enumerate(batch):
        spoken[n, :len(s.weights)] = torch.tensor(s.weights) > 0
    return (nn.functional.pad(t, (0, 0) * (t.ndim - 2) + (0, STEPS)) for t in
              (seen["inputs_embeds"], seen["hidden"], seen["position_ids"], spoken))   # so that each place has all its steps


def loss_of(model, draft, batch):
    """Cross entropy with the model's distribution and distance to its state, summed over places and steps."""
    embeds, hidden, positions, spoken = target_states(model, batch)
    loss = 0.0
    for step, state in enumerate(draft(embeds, hidden, positions)):
        # Place p of step s says token p + 2 + s, and its state is to be that of p + 1 + s.
        place = spoken[:, 2 + step:][:, :state.shape[1]]
        state = state[:, :place.shape[1]][place].float()
        with torch.no_grad():
            wanted = hidden[:, 1 + step:][:, :place.shape[1]][place].float()
            chances = model.lm_head(wanted).float().softmax(-1)
        loss = loss + nn.functional.cross_entropy(model.lm_head(state).float(), chances, reduction="sum")
        loss = loss + 0.05 * nn.functional.smooth_l1_loss(state, wanted, reduction="sum")
    return loss


def load_model(folder):
    model = architecture.build()
    architecture.load(model, folder)
    model.tie_weights()
    return model.requires_grad_(False).eval()


def run(o):
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    if o.bfloat16:
        nn.functional.scaled_dot_product_attention = workers.attention_in_float32
    model, draft, renderer, tasks = load_model(o.model), Draft(), Renderer(f"{o.model}/tekken.json"), cases.registry()
    optimizer, step, path = Optimizer(draft, bfloat16=o.bfloat16), 0, f"{o.dir}/draft.pt"
    os.makedirs(o.dir, exist_ok=True)
    if os.path.exists(path):
        state = torch.load(path, weights_only=True)
        draft.load_state_dict(state["draft"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    elif o.head:
        draft.load_state_dict(load_head(o.head).state_dict())
    began = saved = time.time()
    sums = [0.0, 0]
    while step < o.steps:
        samples = batches.samples_of_step(train.TRAIN_SEED + 1, step, batches.SHARES, o.budget, renderer, tasks)
        places = STEPS * sum(sum(s.learnt) for s in samples)
        for batch in batches.micro_batches(samples, o.micro):
            with torch.autocast("cpu", torch.bfloat16, enabled=o.bfloat16):
                loss = loss_of(model, draft, batch)
            (loss / places).backward()
            sums[0] += float(loss.detach())
        sums[1] += places
        torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        scale = min(1.0, (step + 1) / 40) * max(0.05, 1 - step / o.steps)
        optimizer.step(o.muon_rate * scale, 0.75 * o.muon_rate * scale)
        step += 1
        if step == o.steps or time.time() - saved > 300:
            torch.save({"draft": draft.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path + ".part")
            os.replace(path + ".part", path)
            saved = time.time()
        if step % 25 == 0 or step == o.steps:
            print(json.dumps({"step": step, "loss": round(sums[0] / sums[1], 4), "minutes": round((time.time() - began) / 60, 1)}), flush=True)
            sums = [0.0, 0]


def long_name(name):
    """A tensor of Draft in the names of the whole model in Hugging Face's layout, which export.py writes in Mistral's."""
    return name.replace("body.", "model.language_model.")


def write(o):
    """DIR/draft.pt in FP8 as published: linears in E4M3, a scale for weights and one for inputs of each; norms BF16."""
    model, draft = load_model(o.model), Draft()
    draft.load_state_dict(torch.load(f"{o.dir}/draft.pt", weights_only=True)["draft"])
    linears = {long_name(name): m for name, m in draft.named_modules() if isinstance(m, nn.Linear)}
    ranges = export.activation_ranges(linears, f"{o.model}/tekken.json", lambda batch: loss_of(model, draft, batch))
    weights = {long_name(k): v.to(torch.bfloat16).contiguous() for k, v in draft.state_dict().items()}
    export.write_mistral(o.out, None, export.to_fp8(weights, ranges), True, SIZES)
    print(f"{sum(w.numel() for w in weights.values())} parameters, {os.path.getsize(o.out + '/consolidated.safetensors')} bytes")


def load_head(folder):
    """The head of a folder that `write` made, in float32."""
    from make import mistral_name
    from safetensors.torch import load_file
    draft, stored, weights = Draft(), load_file(f"{folder}/consolidated.safetensors"), {}
    for name in draft.state_dict():
        published = mistral_name(long_name(name))
        w = stored.pop(published).float()
        base = published.removesuffix("weight")
        if base + "qscale_weight" in stored:
            w *= stored.pop(base + "qscale_weight").float()
            stored.pop(base + "qscale_act")
        if name.endswith(("q_proj.weight", "k_proj.weight")):   # pairs of rows -> halves
            heads = SIZES["heads" if "q_proj" in name else "kv"]
            w = w.view(heads, -1, 2, w.shape[1]).transpose(1, 2).reshape(w.shape)
        weights[name] = w
    if stored:
        raise ValueError(f"{folder}: unknown tensors {sorted(stored)}")
    draft.load_state_dict(weights)
    return draft.eval()


@torch.no_grad()
def passes(model, draft, sample):
    """(tokens, passes) of greedy decoding of the last answer with STEPS drafts a pass; the first token comes from the prompt's."""
    embeds, hidden, positions, _ = target_states(model, [sample])
    said = torch.stack([model.lm_head(state[0]).argmax(-1) for state in draft(embeds, hidden, positions)])
    choice = model.lm_head(hidden[0]).argmax(-1)
    end = len(sample.ids)
    place = end
    while sample.learnt[place - 1]:
        place -= 1
    place, first, count = place - 1, place, 0     # `place + 1` is the last token known
    while place + 2 < end:
        right = 0
        while right < STEPS and place + 2 + right < end and said[right, place] == choice[place + 1 + right]:
            right += 1
        place += min(right + 1, end - 2 - place)
        count += 1
    return end - 1 - first, count


def measure(o):
    torch.set_num_threads(o.threads)
    model, draft, renderer, tasks = load_model(o.model), load_head(o.dir), Renderer(f"{o.model}/tekken.json"), cases.registry()
    sums = collections.Counter()
    for task in batches.SHARES:
        tokens = count = 0
        for i in range(o.cases):
            t, c = passes(model, draft, batches.Sample(cases.make(task, train.HELD_OUT_SEED, i, tasks), renderer))
            tokens, count = tokens + t, count + c
        sums += {"tokens": tokens, "passes": count}
        print(f"{task:15} {tokens / max(1, count):5.2f} tokens a pass, {tokens} in all", flush=True)
    print(f"{'together':15} {sums['tokens'] / sums['passes']:5.2f}")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("what", choices=("train", "export", "measure"))
    p.add_argument("model", help="folder of the model")
    p.add_argument("dir", help="folder of draft.pt; for `measure` that of the head")
    p.add_argument("out", nargs="?")
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument("--budget", type=int, default=6000, help="tokens of a step")
    p.add_argument("--muon-rate", type=float, default=4e-3, help="of the matrices, at its highest; Adam's is three quarters of it")
    p.add_argument("--head", help="folder of a published head whose weights are the start, where there is no draft.pt yet")
    p.add_argument("--micro", type=int, default=800, help="padded tokens of one pass")
    p.add_argument("--bfloat16", action="store_true", help="products in bfloat16: for processors that have it")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--cases", type=int, default=50, help="of each task")
    o = p.parse_args()
    if (o.what == "export") != (o.out is not None):
        p.error("OUT is named for `export`, and for nothing else")
    {"train": run, "export": write, "measure": measure}[o.what](o)


if __name__ == "__main__":
    main()
