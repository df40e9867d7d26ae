#!/usr/bin/env python3
"""Trains the demo model; stop it at any time, start it again with the same command and it goes on.

    train.py DIR [--hours H] [--until-step N] [--workers N] ...

DIR gets tekken.json, checkpoint.pt (written whole, then renamed) and log.jsonl (loss by task, exact answers by task on held-out
cases, tokens, seconds).
"""
import argparse
import collections
import contextlib
import json
import os
import random
import signal
import time

import torch

import architecture
import batches
import cases
import export
import lookups
import marks
import tasks_recall
import vocabulary
from optimizer import Optimizer
from render import Renderer
from workers import Workers

TRAIN_SEED, HELD_OUT_SEED = 1, 900001


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("dir")
    p.add_argument("--hours", type=float, default=1e9, help="stop after this many hours of this run")
    p.add_argument("--until-step", type=int, default=1 << 60)
    p.add_argument("--threads", type=int, default=1, help="of this process, within its products")
    p.add_argument("--workers", type=int, default=1, help="processes that share a step")
    p.add_argument("--bfloat16", action="store_true", help="products in bfloat16: for processors that have it")
    p.add_argument("--budget", type=int, default=3000, help="tokens of a step")
    p.add_argument("--micro", type=int, default=800, help="padded tokens of one pass: few, so that samples of like length are together")
    p.add_argument("--muon-rate", type=float, default=2.5e-3, help="of the matrices in the layers")
    p.add_argument("--copying-rate", type=float, default=2e-4, help="of the weights that copy from the start")
    p.add_argument("--adam-rate", type=float, default=1e-3)
    p.add_argument("--warm-up", type=int, default=100, help="steps")
    p.add_argument("--decay-from", type=int, default=1 << 60, help="step from which the rates fall to a twentieth at --until-step")
    p.add_argument("--average", type=float, default=0.998, help="decay of the running average of weights")
    p.add_argument("--marks", type=float, default=0.05, help="weight of what stands in an image token (marks.py)")
    p.add_argument("--lookups", type=float, default=0.3, help="weight of where names and strings of a call stand (lookups.py)")
    p.add_argument("--fp8", action="store_true", help="gradients at the weights as the FP8 form has them: for the last steps, at low rates")
    p.add_argument("--weights", help="a model folder (bf16 or fp8) whose weights are the start, where there is no checkpoint yet")
    p.add_argument("--tower-steps", type=int, default=0, help="steps of the tower alone before going on, on what stands in each image token")
    p.add_argument("--shares", default="", help="task=share,... instead of the built-in ones")
    p.add_argument("--long-from", type=int, default=1 << 60, help="step from which long documents are drawn too")
    p.add_argument("--checkpoint-minutes", type=float, default=10)
    p.add_argument("--evaluate-steps", type=int, default=200)
    p.add_argument("--evaluate-cases", type=int, default=24)
    return p.parse_args()


def rate(step, o):
    warm = min(1.0, (step + 1) / o.warm_up)
    if step < o.decay_from:
        return warm
    return warm * max(0.05, 1 - 0.95 * (step - o.decay_from) / max(1, o.until_step - o.decay_from))


def shares_at(step, o):
    shares = dict(batches.SHARES)
    if step >= o.long_from:
        shares |= batches.LONG
    for item in filter(None, o.shares.split(",")):
        name, share = item.split("=")
        shares[name] = float(share)
    return {k: v for k, v in shares.items() if v > 0}


@torch.no_grad()
def exact(model, renderer, tasks, names, count, micro=4096):
    """{task: share of held-out cases whose every answer token is the most likely one}. With the right answer given as context
    this is the share of cases that greedy generation answers token by token as expected."""
    model.eval()
    out = {}
    for name in names:
        samples = [batches.Sample(cases.make(name, HELD_OUT_SEED, i, tasks), renderer) for i in range(count)]
        for s in samples:   # the last turn only
            i = len(s.learnt) - 1
            while s.learnt[i]:
                i -= 1
            s.weights[:i + 1] = [0.0] * (i + 1)
        good = 0
        for batch in batches.micro_batches(samples, micro):
            logits, targets, _, owner = batches.forward(model, batch)
            wrong = set(owner[logits.argmax(-1) != targets].tolist())
            good += len(batch) - len(wrong)
        out[name] = round(good / count, 3)
    model.train()
    return out


class Run:
    """Weights, their average, the optimizer, and how far we are."""

    def __init__(self, directory, weights=None, bfloat16=False):
        self.directory, self.step, self.tokens, self.seconds = directory, 0, 0, 0.0
        os.makedirs(directory, exist_ok=True)
        if not os.path.exists(f"{directory}/tekken.json"):
            vocabulary.write(f"{directory}/tekken.json")
        self.model = architecture.build()
        self.average = architecture.build()
        self.optimizer = Optimizer(self.model, bfloat16=bfloat16)
        self.path = f"{directory}/checkpoint.pt"
        if os.path.exists(self.path):
            self.load()
        elif weights:
            for model in (self.model, self.average):
                architecture.load(model, weights)

    def save(self):
        state = {"model": self.model.state_dict(), "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        torch.save(state, self.path + ".part")
        os.replace(self.path + ".part", self.path)

    def load(self):
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]

    @torch.no_grad()
    def update_average(self, decay):
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for a, p in zip(self.average.parameters(), self.model.parameters()):
            a.lerp_(p, 1 - decay)

    def log(self, **row):
        row = {"step": self.step, "tokens": self.tokens, "minutes": round(self.seconds / 60, 1), **row}
        with open(f"{self.directory}/log.jsonl", "a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


@contextlib.contextmanager
def rounded_to_fp8(model):
    """Inside, the linears of the text layers have the values that the FP8 form keeps of them."""
    weights = [m.weight for m in export.text_linears(model).values()]
    kept = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w in weights:
            codes, scale = export.fp8_of(w.to(torch.bfloat16))
            w.copy_(codes.float() * scale.float())
    yield
    with torch.no_grad():
        for w, before in zip(weights, kept):
            w.copy_(before)


def train_tower(run, renderer, tasks, words, o, stop):
    """The tower and the projector alone: each image token says what stands in it."""
    sums, began = [0.0, 0.0], time.time()
    torch.set_num_threads(max(o.threads, o.workers))
    for step in range(o.tower_steps):
        if stop:
            break
        rng = random.Random(f"{TRAIN_SEED}/tower/{run.step}/{step}")
        names = rng.choices(("picture", "picture_digits"), (1, 2), k=16)
        made = [cases.make(name, f"{TRAIN_SEED}/tower/{run.step}/{step}", i, tasks) for i, name in enumerate(names)]
        images = [renderer.prompt(c)[1] for c in made]
        target = torch.cat([marks.targets(words, c.marks, i)[0] for c, i in zip(made, images)])
        total, count = marks.loss(run.model, words, torch.cat(batches.image_features(run.model, [i for l in images for i in l])), target)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        scale = min(1.0, (step + 1) / 50) * (1 - 0.9 * step / o.tower_steps)
        run.optimizer.step(o.muon_rate * scale, o.adam_rate * scale, 0.0)
        sums[0] += float(total.detach())
        sums[1] += float(count)
        if (step + 1) % 50 == 0:
            run.log(tower=step + 1, loss=round(sums[0] / sums[1], 3))
            sums = [0.0, 0.0]
    torch.set_num_threads(o.threads)
    run.seconds += time.time() - began
    for part in ("vision_tower", "multi_modal_projector"):
        getattr(run.average.model, part).load_state_dict(getattr(run.model.model, part).state_dict())


def main():
    o = options()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    run = Run(o.dir, o.weights, o.bfloat16)
    renderer, tasks = Renderer(f"{o.dir}/tekken.json"), cases.registry()
    words, find = marks.Words(renderer), lookups.Lookups(renderer)
    run.log(started=True, parameters=sum(p.numel() for p in run.model.parameters()))
    start = saved = time.time()
    stop = []   # a signal ends the run after the step, with a checkpoint
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(1))
    losses = collections.defaultdict(lambda: [0.0, 0])
    run.model.train()
    workers = Workers(run.model, o.workers, o.micro, words, {"looks": o.marks, "places": o.marks, "lookups": o.lookups}, o.bfloat16)
    if o.tower_steps:
        train_tower(run, renderer, tasks, words, o, stop)
    while not stop and run.step < o.until_step and time.time() - start < o.hours * 3600:
        began = time.time()
        shares = shares_at(run.step, o)
        samples = batches.samples_of_step(TRAIN_SEED, run.step, shares, o.budget, renderer, tasks, words, find)
        with rounded_to_fp8(run.model) if o.fp8 else contextlib.nullcontext():
            by_task = workers.train_step(samples)
        for task, (total, count) in by_task.items():
            losses[task][0] += total
            losses[task][1] += count
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        scale = rate(run.step, o)
        torch.set_num_threads(max(o.threads, o.workers))   # the other processes wait
        run.optimizer.step(o.muon_rate * scale, o.adam_rate * scale, o.copying_rate * scale)
        run.update_average(o.average)
        torch.set_num_threads(o.threads)
        run.step += 1
        run.tokens += sum(len(s.ids) for s in samples)
        run.seconds += time.time() - began
        if run.step % 25 == 0:
            run.log(loss={k: round(v[0] / max(1, v[1]), 3) for k, v in sorted(losses.items())})
            losses.clear()
        if run.step % o.evaluate_steps == 0:
            run.log(exact=exact(run.average, renderer, tasks, [t for t in shares if t not in tasks_recall.SLOW], o.evaluate_cases))
        if time.time() - saved > o.checkpoint_minutes * 60:
            run.save()
            saved = time.time()
    workers.close()
    run.save()
    run.log(stopped=True)


if __name__ == "__main__":
    main()
