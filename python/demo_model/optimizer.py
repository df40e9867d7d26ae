"""Muon for the matrices inside the layers, Adam for the rest.

Muon takes the momentum of the gradient and replaces it by the nearest orthogonal matrix: all directions of a matrix move
equally, so it learns from fewer tokens than Adam, but a matrix that already does something forgets it within 50 steps. What
copies from the start (copying_start.py) is therefore Adam's, with a small rate of its own. Float32 where not asked otherwise:
processors without bfloat16 instructions are several times slower in it.
"""
import torch
from copying_start import COPYING


def orthogonal(g, steps=5):
    """Newton-Schulz iteration on a stack [n, rows, columns] with rows <= columns."""
    x = g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = torch.bmm(x, x.mT)
        x = 3.4445 * x + torch.bmm(-4.7750 * a + 2.0315 * torch.bmm(a, a), x)
    return x


class Optimizer:
    def __init__(self, model, weight_decay=0.01, bfloat16=False):
        self.bfloat16 = bfloat16   # of Muon's iteration
        self.matrices, self.others, self.copying = [], [], []
        for name, p in model.named_parameters():
            if not p.requires_grad:
                continue
            inside = ".layers." in name or "multi_modal_projector" in name or "eagle_linear" in name
            if any(part in name for part in COPYING):
                self.copying.append(p)
            else:
                (self.matrices if p.ndim == 2 and inside else self.others).append(p)
        self.groups = {}
        for p in self.matrices:
            self.groups.setdefault((min(p.shape), max(p.shape)), []).append(p)
        self.momentum = {id(p): torch.zeros_like(p) for p in self.matrices}
        groups = [{"params": params} for params in (self.others, self.copying) if params]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)
        self.weight_decay = weight_decay

    @torch.no_grad()
    def step(self, muon_rate, adam_rate, copying_rate=0.0, beta=0.95):
        for group, rate in zip(self.adam.param_groups, (adam_rate, copying_rate)):
            group["lr"] = rate
        self.adam.step()
        for params in self.groups.values():
            stack, params = [], [p for p in params if p.grad is not None]   # a step without pictures has no gradient of the tower
            if not params:
                continue
            for p in params:
                m = self.momentum[id(p)].lerp_(p.grad, 1 - beta)
                update = p.grad.lerp(m, beta)
                stack.append(update if p.shape[0] <= p.shape[1] else update.mT)
            for p, u in zip(params, orthogonal(torch.stack(stack).to(torch.bfloat16 if self.bfloat16 else torch.float32))):
                u = (u if p.shape[0] <= p.shape[1] else u.mT).to(p.dtype)
                p.mul_(1 - muon_rate * self.weight_decay)
                p.add_(u, alpha=-muon_rate * 0.2 * max(p.shape) ** 0.5)
        for p in self.matrices + self.others + self.copying:
            p.grad = None

    def state_dict(self):
        return {"momentum": [self.momentum[id(p)] for p in self.matrices], "adam": self.adam.state_dict()}

    def load_state_dict(self, state):
        for p, m in zip(self.matrices, state["momentum"]):
            self.momentum[id(p)].copy_(m)
        self.adam.load_state_dict(state["adam"])
