"""Data-parallel gradients on one machine: processes that share the weights, each with a part of a step's batches.

Two processes of one thread make a step of many small products nearly twice as fast as one; two threads within the products only
1.4 times."""
import collections
import heapq
import signal

import torch
import torch.multiprocessing as multiprocessing

import architecture
import batches


_attention = torch.nn.functional.scaled_dot_product_attention


def attention_in_float32(query, key, value, *args, **kwargs):
    """Torch's own for processors is three times slower backwards in bfloat16."""
    with torch.autocast("cpu", enabled=False):
        return _attention(query.float(), key.float(), value.float(), *args, **kwargs)


def add_gradients(model, micro_batches, total, words=None, shares=None, bfloat16=False):
    """Adds the gradients of the mean loss over weights of sum `total`; returns {task: [sum of losses, places]}. With `words`
    the losses of hidden places are added (batches.forward), each with its weight in `shares`. `bfloat16`: products in that arithmetic, weights stay float32."""
    by_task = collections.defaultdict(lambda: [0.0, 0])
    for batch in micro_batches:
        torch.nn.functional.scaled_dot_product_attention = attention_in_float32 if bfloat16 else _attention
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits, targets, weights, owner, *more = batches.forward(model, batch, words)
        losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        loss = (losses * weights).sum()
        for name, (of_places, count) in (more[0] if more else {}).items():
            loss = loss + shares[name] * of_places
            by_task[name][0] += float(of_places.detach())
            by_task[name][1] += float(count)
        (loss / total).backward()
        losses = losses.detach()
        for n, s in enumerate(batch):
            mine = losses[owner == n]
            by_task[s.task][0] += float(mine.sum())
            by_task[s.task][1] += len(mine)
    return by_task


ATTENTION_AS_REST = 3000   # tokens of a sample at which its attention takes as long as all else: measured, on Zen 4


def parts_of(micro_batches, count):
    """The batches dealt out to `count` lists of about the same cost, the dearest first."""
    parts, heap = [[] for _ in range(count)], [(0, i) for i in range(count)]
    costs = [sum(len(s.ids) * (1 + len(s.ids) / ATTENTION_AS_REST) + sum(i.shape[1] * i.shape[2] // 196 for i in s.images) for s in b)
             for b in micro_batches]
    for cost, n in sorted(((c, n) for n, c in enumerate(costs)), reverse=True):
        load, i = heapq.heappop(heap)
        parts[i].append(micro_batches[n])
        heapq.heappush(heap, (load + cost, i))
    return parts


def _serve(pipe, weights, gradients, micro, *more):
    for number in (signal.SIGTERM, signal.SIGINT):   # who started it ends it
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = architecture.build()   # a model sent through a pipe loses the hooks that give hidden states
    for p, shared in zip(model.parameters(), weights):
        p.data = shared
    model.train()
    while (request := pipe.recv()) is not None:
        samples, part, count, total = request
        by_task = add_gradients(model, parts_of(batches.micro_batches(samples, micro), count)[part], total, *more)
        has_gradient = [p.grad is not None for p in model.parameters()]   # none of the tower in a step without pictures
        for p, g in zip(model.parameters(), gradients):
            if p.grad is not None:
                g.copy_(p.grad)
                p.grad = None
        pipe.send((dict(by_task), has_gradient))


class Workers:
    """`count` processes in all, this one among them; `more` as in add_gradients."""

    def __init__(self, model, count, micro, *more):
        self.model, self.count, self.micro, self.more, self.others = model, count, micro, more, []
        if count == 1:
            return
        model.share_memory()
        weights = [p.data for p in model.parameters()]
        context = multiprocessing.get_context("spawn")
        for _ in range(count - 1):
            gradients = [torch.zeros_like(p).share_memory_() for p in model.parameters()]
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, weights, gradients, micro, *more), daemon=True)
            process.start()
            there.close()
            self.others.append((process, here, gradients))

    def train_step(self, samples):
        """Adds the gradients of one step; returns {task: [sum of losses, places]}."""
        total = sum(sum(s.weights) for s in samples)
        for part, (_, pipe, _) in enumerate(self.others, 1):
            pipe.send((samples, part, self.count, total))
        by_task = add_gradients(self.model, parts_of(batches.micro_batches(samples, self.micro), self.count)[0], total, *self.more)
        for _, pipe, gradients in self.others:
            theirs, has_gradient = pipe.recv()
            for task, (loss, places) in theirs.items():
                by_task[task][0] += loss
                by_task[task][1] += places
            for p, g, has in zip(self.model.parameters(), gradients, has_gradient):
                if has:
                    p.grad = g.clone() if p.grad is None else p.grad.add_(g)
        return by_task

    def close(self):
        for process, pipe, _ in self.others:
            pipe.send(None)
            process.join()
        self.others = []
