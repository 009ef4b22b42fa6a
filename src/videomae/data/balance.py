"""Classes of unequal size: an order of the videos in which each class comes equally often, and weights of the loss.

`n` videos, `K` classes or labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from videomae.data.targets import Targets
from videomae.engine.seeding import numpy_generator
from videomae.errors import ConfigError

IntArray = NDArray[np.int64]
MAX_POSITIVE_WEIGHT = 100.0  # of a label that one video in a hundred has, or fewer


def balanced_order(labels: IntArray, *, seed: int, epoch: int) -> IntArray:
    """Return the videos of one pass in which every class comes equally often, `[n]` int64.

    A pass is as long as one over all videos. Each class goes through its own videos in random order, again and again,
    and goes on in the next pass where this one has ended: so videos of a small class come several times in a pass,
    and those of a large one are all seen after enough passes. What of n the classes do not divide is given to some
    of them, others in each pass.

    Args:
        labels: `[n]` class ids.
        seed: The run's.
        epoch: Of the pass, from 0.
    """
    total, classes = len(labels), np.unique(labels)
    per_class, extra = divmod(total, len(classes))
    rng = numpy_generator(seed, epoch, "balanced order")
    with_one_more = set(rng.permutation(len(classes))[:extra].tolist())
    chosen = []
    for place, label in enumerate(classes.tolist()):
        rows = np.flatnonzero(labels == label)
        count = per_class + (place in with_one_more)
        # At most one more a pass: a class moves on by the larger count, so that none is skipped for long.
        first = epoch * (per_class + 1)
        positions = np.arange(first, first + count)
        for turn in np.unique(positions // len(rows)).tolist():
            order = numpy_generator(seed, int(label), turn, "class order").permutation(len(rows))
            chosen.append(rows[order[positions[positions // len(rows) == turn] % len(rows)]])
    every = np.concatenate(chosen)
    return every[rng.permutation(total)].astype(np.int64)


def occurrences(order: IntArray) -> IntArray:
    """Return how often each entry of an order has come before in it, `[n]`."""
    sort = np.argsort(order, kind="stable")
    ordered = order[sort]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    found = np.empty_like(counts)
    found[sort] = counts
    return found


def loss_weights(targets: Targets) -> NDArray[np.float32]:
    """Return weights of the loss that make up for classes of unequal size, `[K]` float32.

    For a choice between classes, n / (K * videos of the class), which is 1 in the mean over the videos. For several
    labels, of the videos that have a label: those without it divided by those with it, at most 100.

    Raises:
        ConfigError: If the targets are values.

    Source: "balanced" of scikit-learn; `pos_weight` of torch.
    """
    num_outputs, num_videos = len(targets.names), len(targets.values)
    if targets.problem == "regression":
        raise ConfigError("head.class_weights is balanced, but values have no classes: use none")
    if targets.problem == "multi_label_classification":
        positive = targets.values.sum(axis=0)
        weights = np.clip((num_videos - positive) / np.maximum(positive, 1), None, MAX_POSITIVE_WEIGHT)
        return np.where((positive == 0) | (weights == 0), 1.0, weights).astype(np.float32)
    counts = np.bincount(targets.values.astype(np.int64), minlength=num_outputs)
    present = int((counts > 0).sum())
    return np.where(counts > 0, num_videos / (present * np.maximum(counts, 1)), 1.0).astype(np.float32)
