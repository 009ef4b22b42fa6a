"""What an encoder is worth: linear and attentive probes on frozen features, and fine-tuning."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.learning.graphs import Adam, MasterWeights, capture
from experiments.learning.labelled import Labelled, Split
from experiments.learning.settings import NUM_FRAMES, model_config, normalized
from videomae.engine.precision import has_bf16
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining

Row = dict[str, Any]
RIDGE = (1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
PROBE_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
PROBE_QUERIES = 4
HEAD_SCALE = 0.001  # of the new classifier, as in the package's fine-tuning
TIME_SLICES = NUM_FRAMES // 2


# ---- frozen features ---------------------------------------------------------------------------------------------


@torch.no_grad()
def frozen_tokens(model: VideoMAEForPreTraining, data: Labelled, *, layer: int | None = None) -> Tensor:
    """Return token states `[n, N, D]` of every clip after the final norm, or before a block; bfloat16 in hardware."""
    device = data.clips.device
    dtype = torch.bfloat16 if has_bf16(device) else torch.float32
    model = copy.deepcopy(model).to(dtype).eval()
    parts = []
    for rows in torch.arange(len(data.labels), device=device).split(128):
        clips = normalized(data.views(rows, augment=False), dtype)
        output = model.videomae(clips, output_hidden_states=layer is not None)
        parts.append(output.last_hidden_state if layer is None else output.hidden_states[layer])
    return torch.cat(parts)


def linear_probe(features: Tensor, labels: Tensor, split: Split, train: Tensor, num_classes: int) -> Row:
    """Fit ridge regression to one-hot labels on features `[n, d]`; the strength is chosen on the validation rows."""
    rows = train.to(features.device)
    mean, std = features[rows].mean(0), features[rows].std(0)
    x = ((features - mean) / (std + 1e-3 * std.mean() + 1e-8)).double()
    onehot = F.one_hot(labels[rows], num_classes).double()
    offset = onehot.mean(0)
    gram = x[rows] @ x[rows].T  # [k, k]
    eye = torch.eye(len(rows), dtype=gram.dtype, device=gram.device)
    best: Row = {"val": -1.0}
    for strength in RIDGE:
        dual = torch.linalg.solve(gram + strength * eye, onehot - offset)
        scores = x @ (x[rows].T @ dual) + offset
        chosen = scores.argmax(1)
        val = float((chosen[split.val] == labels[split.val]).double().mean())
        if val > best["val"]:
            best = {"val": val, "strength": strength, "predictions": chosen[split.test].cpu()}
    return best


def attentive_probe(
    tokens: Tensor, labels: Tensor, split: Split, train: Tensor, num_classes: int, *, seeds: int, steps: int
) -> list[Row]:
    """Train attentive probes with temporal positions, all rates and seeds at once; the rate is chosen on validation.

    A probe is a few learned queries; a token's key is its standardized state plus a learned code of its time slice;
    the attended states, one for each query, go into a linear classifier.
    """
    device = tokens.device
    rows = train.to(device)
    _, N, D = tokens.shape
    mean = tokens[rows].float().mean(dim=(0, 1))
    std = tokens[rows].float().std(dim=(0, 1)) + 1e-6
    scale, shift = (1 / std).to(tokens.dtype), (-mean / std).to(tokens.dtype)
    R = len(PROBE_RATES) * seeds
    rates = torch.tensor(PROBE_RATES, device=device).repeat_interleave(seeds)
    generator = torch.Generator(device).manual_seed(3)

    def normal(*shape: int, std: float) -> Tensor:
        start = torch.randn(seeds, *shape, generator=generator, device=device) * std
        return start.repeat(len(PROBE_RATES), *([1] * len(shape))).requires_grad_()

    queries = normal(PROBE_QUERIES, D, std=D**-0.5)
    codes = normal(TIME_SLICES, D, std=0.02)
    weight = normal(num_classes, PROBE_QUERIES, D, std=0.01)
    bias = normal(num_classes, std=0.0)
    parameters = [queries, codes, weight, bias]
    moments = [[torch.zeros_like(one) for one in parameters] for _ in range(2)]
    wide = [rates.view(-1, *([1] * (one.ndim - 1))) for one in parameters]
    batch = min(96, len(rows))

    def logits(chosen: Tensor) -> Tensor:
        x = tokens[chosen] * scale + shift  # [b, N, D]
        q, c = queries.to(x.dtype), codes.to(x.dtype)
        scores = torch.einsum("bnd,rqd->brqn", x, q)
        timed = torch.einsum("rtd,rqd->rqt", c, q).repeat_interleave(N // TIME_SLICES, dim=2)
        attention = ((scores + timed).float()).softmax(dim=-1).to(x.dtype)
        pooled = torch.einsum("brqn,bnd->brqd", attention, x)
        slices = attention.unflatten(-1, (TIME_SLICES, -1)).sum(-1)  # [b, R, Q, t]
        pooled = pooled + torch.einsum("brqt,rtd->brqd", slices, c)
        return torch.einsum("brqd,rkqd->brk", pooled.float(), weight) + bias

    order_generator = torch.Generator().manual_seed(4)
    for step in range(steps):
        chosen = rows[torch.randint(len(rows), (batch,), generator=order_generator).to(device)]
        loss = (
            F.cross_entropy(logits(chosen).flatten(0, 1), labels[chosen].repeat_interleave(R), reduction="sum")
            / batch
        )
        gradients = torch.autograd.grad(loss, parameters)
        factor = min((step + 1) / (0.1 * steps), 1.0) * (1 - step / steps)
        with torch.no_grad():
            for one, gradient, first, second, lr in zip(parameters, gradients, *moments, wide, strict=True):
                first.lerp_(gradient, 0.1)
                second.lerp_(gradient * gradient, 0.01)
                hat = (second / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8
                one -= factor * lr * (first / (1 - 0.9 ** (step + 1)) / hat + 0.01 * one)
    with torch.no_grad():

        def predicted(some: Tensor) -> Tensor:
            return torch.cat([logits(part).argmax(2) for part in some.to(device).split(96)]).cpu()  # [m, R]

        val, test = predicted(split.val), predicted(split.test)
    accuracy = (val == labels.cpu()[split.val][:, None]).double().mean(0).view(len(PROBE_RATES), seeds)
    best = int(accuracy.mean(1).argmax())
    return [
        {
            "val": float(accuracy[best, seed]),
            "lr": PROBE_RATES[best],
            "seed": seed,
            "predictions": test[:, best * seeds + seed],
        }
        for seed in range(seeds)
    ]


# ---- fine-tuning -------------------------------------------------------------------------------------------------


class FineTuner:
    """Fine-tunes classifiers of one architecture on one data set; one CUDA graph serves all runs."""

    def __init__(self, data: Labelled, *, batch_size: int, max_steps: int, layer_decay: float = 1.0) -> None:
        device = data.clips.device
        self.data = data
        self.dtype = torch.bfloat16 if has_bf16(device) else torch.float32
        self.model = self.new(0).to(device)
        self.masters = MasterWeights(self.model)
        self.model = self.model.to(self.dtype).train()
        self.masters.working = list(self.model.parameters())
        self.adam = Adam(
            self.masters.masters, betas=(0.9, 0.999), weight_decay=0.05, scales=[1.0] * len(self.masters.masters)
        )
        self.rows = torch.zeros(1 << 12, dtype=torch.int64, device=device)
        self.count = torch.ones((), device=device)
        self.rates = torch.zeros(max_steps + 8, device=device)
        self.batch_size = batch_size
        self.replay = capture(self._step, device)

    def new(self, seed: int) -> VideoMAEForVideoClassification:
        """Return a classifier from random weights, as the package starts one from scratch."""
        from experiments.learning.settings import Pretraining

        torch.manual_seed(100 + seed)
        names = dict(enumerate(self.data.classes))
        return VideoMAEForVideoClassification(model_config(Pretraining(), use_mean_pooling=True, id2label=names))

    def start(self, encoder: VideoMAEForPreTraining | None, seed: int) -> list[Tensor]:
        """Return the initial tensors: of an encoder with a new head, or from scratch."""
        model = self.new(seed)
        with torch.no_grad():
            for one in model.classifier.parameters():
                one.mul_(HEAD_SCALE)
            if encoder is not None:
                own = dict(encoder.named_parameters())
                for name, parameter in model.named_parameters():
                    if name in own:
                        parameter.copy_(own[name])
        return [one.detach() for one in model.parameters()]

    def _step(self) -> None:
        chosen = self.rows[(torch.rand(self.batch_size, device=self.rows.device) * self.count).long()]
        clips = normalized(self.data.views(chosen, augment=True), self.dtype)
        logits = self.model(clips).logits.float()
        loss = F.cross_entropy(logits, self.data.labels[chosen], label_smoothing=0.1)
        for one in self.masters.working:
            one.grad = None
        loss.backward()
        self.masters.take_gradients()
        # index_select: plain indexing with a number on the device would wait for it
        self.adam.lr.copy_(self.rates.index_select(0, self.adam.count.long().view(1))[0])
        self.adam.step()
        self.masters.give_weights()

    def run(self, start: Sequence[Tensor], split: Split, train: Tensor, *, lr: float, steps: int, seed: int) -> Row:
        """Fine-tune once; returns validation accuracy and the test clips' predictions."""
        device = self.rows.device
        begin = time.perf_counter()
        self.masters.load([one.to(device) for one in start])
        self.adam.reset()
        self.rows[: len(train)] = train.to(device)
        self.count.fill_(len(train))
        spent = torch.arange(len(self.rates), device=device) / steps
        warm = 0.1
        self.rates.copy_(
            lr
            * torch.where(spent < warm, spent / warm, 0.5 * (1 + torch.cos(torch.pi * (spent - warm) / (1 - warm))))
        )
        torch.manual_seed(10 + seed)
        self.model.train()
        for _ in range(steps):
            self.replay()
        val, test = self.predict(split.val), self.predict(split.test)
        return {
            "val": float((val == self.data.labels.cpu()[split.val]).double().mean()),
            "lr": lr,
            "seed": seed,
            "steps": steps,
            "predictions": test,
            "seconds": time.perf_counter() - begin,
        }

    @torch.no_grad()
    def predict(self, rows: Tensor) -> Tensor:
        """Return predicted labels of the middle views, on the CPU."""
        self.model.eval()
        parts = [
            self.model(normalized(self.data.views(part, augment=False), self.dtype)).logits.argmax(1)
            for part in rows.to(self.rows.device).split(128)
        ]
        return torch.cat(parts).cpu()
