"""Numbers about features, attention, gradients and errors: pure functions of tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae.attentive import fit_attentive

NEIGHBOURS = 5
RIDGE = (
    0.1  # of the mean squared feature: weak enough to fit tens of clips, strong enough for more dimensions than clips
)
MIN_PER_CLASS = 2  # a class of one clip has no neighbor
ATTENTIVE_FROM = 24  # clips: with fewer, tens of steps cost more than the measurement and tell nothing
ATTENTIVE_STEPS = 40
ATTENTIVE_PENALTY = 1e-2  # in the middle of what `videomae probe` chooses from
SAMPLE = 65_536  # values of a group of weights whose change is measured: enough for two digits
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.")


def effective_rank(features: Tensor) -> float:
    """Return how many directions the features use: the exponential of the entropy of their singular values.

    Args:
        features: `[n, D]`.

    Returns:
        1 for features along one line, up to `min(n, D)`; 0 for features that are all zero.

    Source: RankMe (Garrido et al. 2023), equation 1.
    """
    singular = torch.linalg.svdvals(features.float())
    if float(singular.sum()) <= 0.0:
        return 0.0
    p = singular / singular.sum() + 1e-7  # as in the paper
    return float(torch.exp(-(p * p.log()).sum()))


def content_fraction(features: Tensor) -> float:
    """Return the fraction of the features' variance that is between clips at the same position of the grid.

    0 where features tell positions apart but not clips, as those of a position table alone would.

    Args:
        features: `[B, V, D]`, of the same positions in every clip.
    """
    B = len(features)
    if B < 2:
        return 1.0
    total = float((features - features.mean(dim=(0, 1))).square().sum())
    between = float((features - features.mean(dim=0)).square().sum()) * B / (B - 1)  # the mean takes its part along
    return min(between / total, 1.0) if total > 1e-9 * features.numel() else 0.0


def neighbour_accuracy(features: Tensor, labels: Sequence[int], *, neighbours: int = NEIGHBOURS) -> float:
    """Return the accuracy of a vote of the nearest other clips by cosine similarity.

    Args:
        features: `[n, D]`, one for each clip.
        labels: n class ids.
        neighbours: Clips that vote, each by its similarity.
    """
    unit = nn.functional.normalize(features.float() - features.float().mean(dim=0), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-2.0)  # [n, n]
    weights, nearest = similarity.topk(min(neighbours, len(labels) - 1), dim=1)
    one_hot = nn.functional.one_hot(torch.tensor(labels)).float().to(features.device)
    votes = ((weights + 1.0)[..., None] * one_hot[nearest]).sum(dim=1)  # [n, K]
    return float((votes.argmax(dim=1) == one_hot.argmax(dim=1)).float().mean())


def linear_probe_accuracy(features: Tensor, labels: Sequence[int]) -> float:
    """Return the leave-one-out accuracy of ridge regression on the classes, in closed form.

    Args:
        features: `[n, D]`.
        labels: n class ids.
    """
    centered = features.double() - features.double().mean(dim=0)
    one_hot = nn.functional.one_hot(torch.tensor(labels)).double().to(features.device)
    targets = one_hot - one_hot.mean(dim=0)
    gram = centered @ centered.T  # [n, n]
    n = len(labels)
    strength = RIDGE * gram.diagonal().mean().clamp_min(1e-12)
    hat = gram @ torch.linalg.inv(gram + strength * torch.eye(n, dtype=gram.dtype, device=gram.device))
    fitted = hat @ targets
    left_out = (fitted - hat.diagonal()[:, None] * targets) / (1.0 - hat.diagonal()).clamp_min(1e-9)[:, None]
    return float((left_out.argmax(dim=1) == one_hot.argmax(dim=1)).double().mean())


@torch.enable_grad()
def attentive_probe_accuracy(tokens: Tensor, slices: Tensor, labels: Sequence[int], groups: Sequence[str]) -> float:
    """Return the accuracy of the attentive probe, fitted on each half of the clips and tested on the other.

    Args:
        tokens: `[n, V, D]`, detached.
        slices: `[n, V]` int64, time slice of each. Where slices do not have equally many tokens, in their order, the
            probe does without temporal positions.
        labels: n class ids.
        groups: n names; clips of one name are never on both sides.
    """
    count = int(slices.max()) + 1
    # As it is under tube masks: the same number of tokens slice after slice, in every clip.
    regular = torch.arange(count, device=slices.device).repeat_interleave(-(-slices.shape[1] // count))
    even = regular.shape == slices[0].shape and bool((slices == regular).all())
    shaped = tokens.float().cpu().unflatten(1, (count, -1) if even else (1, -1))
    targets, first = np.asarray(labels), torch.from_numpy(_first_half(labels, groups))
    correct = 0
    for known in (first, ~first):
        probe = fit_attentive(
            shaped[known],
            targets[known.numpy()],
            penalty=ATTENTIVE_PENALTY,
            num_classes=int(targets.max()) + 1,
            seed=0,
            steps=ATTENTIVE_STEPS,
        )
        found = probe.probabilities(shaped[~known]).argmax(axis=1)
        correct += int((found == targets[~known.numpy()]).sum())
    return correct / len(labels)


def _first_half(labels: Sequence[int], groups: Sequence[str]) -> NDArray[np.bool_]:
    """Mark about half of each class's groups."""
    order = sorted({(label, group) for label, group in zip(labels, groups, strict=True)})
    side: dict[str, bool] = {}
    for number, (_, group) in enumerate(order):
        side.setdefault(group, number % 2 == 0)
    return np.array([side[group] for group in groups])


def usable_labels(labels: Sequence[int | None]) -> list[int]:
    """Return the positions of clips whose class has at least two clips; none unless there are two such classes."""
    counts: dict[int, int] = {}
    for label in labels:
        if label is not None:
            counts[label] = counts.get(label, 0) + 1
    good = {label for label, count in counts.items() if count >= MIN_PER_CLASS}
    return [place for place, label in enumerate(labels) if label in good] if len(good) > 1 else []


def attention_distances(attentions: Sequence[Tensor], places: Tensor) -> list[float]:
    """Return the mean distance of what each layer attends to, in tokens, over clips, heads and queries.

    Args:
        attentions: Probabilities `[B, H, V, V]` of each layer.
        places: `[B, V, 3]`, time, row and column of each token.

    Source: Dosovitskiy et al. 2021, appendix D.7, with time as a third direction.
    """
    distance = torch.cdist(places, places)[:, None]  # [B, 1, V, V]
    # A CLS token, which stands first, has no position.
    V = places.shape[1]
    return [float((one[..., -V:, -V:].float() * distance).sum(dim=-1).mean()) for one in attentions]


def explained_variance(errors: Tensor, variances: Tensor, hidden: Tensor, shape: tuple[int, int, int]) -> Explained:
    """Return the share of the targets' variance that predictions explain, by time and by position.

    Args:
        errors: `[B, M]` mean squared error of each hidden token.
        variances: `[B, M]` mean squared error of the trivial baseline there.
        hidden: `[B, M]` int64 token indices.
        shape: Token grid.

    Returns:
        1 - error / variance for each time slice and each row and column; None where nothing was hidden.
    """
    num_tokens = shape[0] * shape[1] * shape[2]
    sums = [
        torch.zeros(num_tokens, dtype=torch.float64)
        .index_add_(0, hidden.flatten().cpu(), one.flatten().double().cpu())
        .view(shape)
        for one in (errors, variances)
    ]

    def share(error: float, variance: float) -> float | None:
        return round(1.0 - error / variance, 5) if variance > 0 else None

    by_time = [one.sum(dim=(1, 2)).tolist() for one in sums]
    by_place = [one.sum(dim=0).tolist() for one in sums]
    return {
        "time": [share(*pair) for pair in zip(*by_time, strict=True)],
        "position": [[share(*pair) for pair in zip(*rows, strict=True)] for rows in zip(*by_place, strict=True)],
    }


Explained = dict[str, list[float | None] | list[list[float | None]]]


def layer_groups(names: Sequence[str], depth: int) -> dict[str, str]:
    """Return the group of each parameter: embeddings, early, middle and late thirds of the encoder, decoder."""
    groups = {}
    for name in names:
        block = _BLOCK.search(name)
        if name.startswith("videomae.embeddings"):
            groups[name] = "embeddings"
        elif block and name.startswith("videomae."):
            groups[name] = ("early", "middle", "late")[min(3 * int(block.group(1)) // max(depth, 1), 2)]
        elif name.startswith("videomae."):
            groups[name] = "late"  # the final norm
        else:
            groups[name] = "decoder"
    return groups


@torch.no_grad()
def gradient_norms(model: nn.Module, groups: Mapping[str, str]) -> dict[str, float]:
    """Return the norm of the gradients of each group; waits for the device."""
    squares: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            square = parameter.grad.float().square().sum()
            squares[groups[name]] = squares[groups[name]] + square if groups[name] in squares else square
    return {group: float(square.sqrt()) for group, square in squares.items()}


@torch.no_grad()
def weight_samples(model: nn.Module, groups: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a copy of some values of each group's matrices: of each matrix every so many, in a fixed order."""
    matrices: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.ndim >= 2 and not name.endswith("token"):
            matrices.setdefault(groups[name], []).append(parameter)
    samples = {}
    for group, tensors in matrices.items():
        stride = -(-sum(one.numel() for one in tensors) // SAMPLE)
        samples[group] = torch.cat([one.flatten()[::stride].float() for one in tensors]).clone()
    return samples


def relative_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the norm of the change of each group over the norm of the weights; waits for the device."""
    return {group: float((after[group] - old).norm() / old.norm().clamp_min(1e-12)) for group, old in before.items()}
