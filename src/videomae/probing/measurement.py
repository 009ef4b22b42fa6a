"""The probes over the outer folds, and everything that is said about their predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from videomae.attentive import fit_attentive
from videomae.engine.seeding import derive_seed, numpy_generator
from videomae.evaluation.uncertainty import (
    Bin,
    Interval,
    accuracy_interval,
    group_draws,
    percentiles,
    reliability,
)
from videomae.probing.advice import advice
from videomae.probing.attentive import choose_attentive_penalty
from videomae.probing.configs import ProbeConfig
from videomae.probing.extraction import Features
from videomae.probing.folds import Fold, group_folds
from videomae.probing.linear import choose_neighbours, choose_penalty, fit_linear, neighbour_probabilities
from videomae.probing.measures import LearningCurve, doubling_gain, fit_curve
from videomae.probing.results import CurvePoint, ProbeAccuracy
from videomae.probing.videos import ProbeVideos

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CURVE_FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training videos of a fold
CURVE_REPEATS = 4  # random choices of videos, in each fold
GAIN_DRAWS = 400  # bootstrap samples for which the curve is fitted again


class MeasuredCurve(NamedTuple):
    """The linear probe by number of labels; see `ProbeResult`."""

    points: tuple[CurvePoint, ...]
    fit: LearningCurve
    gain: float
    gain_interval: Interval


@dataclass(frozen=True)
class Measured:
    """What the folds gave; see `ProbeResult`."""

    folds: int
    majority: float
    probes: tuple[ProbeAccuracy, ...]
    linear_probabilities: FloatArray
    """`[n, K]`, of each video by the fold that did not see its group."""
    calibration_error: float
    reliability: tuple[Bin, ...]
    curve: MeasuredCurve
    advice: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Task:
    """Videos to tell apart, divided into folds."""

    features: Features
    """Of the n videos."""
    labels: IntArray
    """`[n]` class ids in [0, K)."""
    groups: IntArray
    """`[n]`."""
    folds: tuple[Fold, ...]
    """Outer folds; none has a group on both sides."""
    seed: int
    """Of every draw."""

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.labels.max()) + 1


def measure(features: Features, videos: ProbeVideos, config: ProbeConfig, *, tell: Callable[[str], None]) -> Measured:
    """Fit and judge all probes.

    Args:
        features: Of the videos.
        videos: Labels and groups, in the same order.
        config: Folds and seed.
        tell: Takes a line about each probe that is done.
    """
    labels, groups = videos.labels, videos.group_ids
    folds = tuple(group_folds(labels, groups, folds=config.folds, seed=config.seed))
    task = Task(features, labels, groups, folds, config.seed)
    found: dict[str, FloatArray] = {}
    choices: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for kind in ("linear", "k-NN", "attentive") if config.attentive else ("linear", "k-NN"):
        began = time.monotonic()
        found[kind], choices[kind] = _out_of_fold(task, kind, tell=tell)
        seconds[kind] = time.monotonic() - began
        tell(f"{kind}: {(found[kind].argmax(axis=1) == labels).mean():.1%}, {seconds[kind]:.0f} s")
    probes = tuple(_judged(task, kind, found=found, choices=choices[kind]) for kind in found)
    began = time.monotonic()
    curve = _measured_curve(task, choices["linear"])
    seconds["learning curve"] = time.monotonic() - began
    majority = float(np.bincount(labels).max() / len(labels))
    linear = found["linear"]
    error, bins = reliability(linear.max(axis=1), linear.argmax(axis=1) == labels)
    best = max(probes, key=lambda one: one.accuracy)
    return Measured(
        folds=len(folds),
        majority=majority,
        probes=probes,
        linear_probabilities=found["linear"],
        calibration_error=error,
        reliability=bins,
        curve=curve,
        advice=advice(
            best=best.name,
            accuracy=best.accuracy,
            interval=best.interval,
            majority=majority,
            gain=curve.gain,
            gain_interval=curve.gain_interval,
            labels=len(labels),
        ),
        seconds=seconds,
    )


def _measured_curve(task: Task, penalties: Sequence[float]) -> MeasuredCurve:
    """Measure the learning curve, fit it, and tell what twice the labels promise, with bootstrap intervals."""
    numbers, right = learning_curve(task, penalties)
    total = len(task.labels)
    draws = group_draws(right, task.groups, rng=numpy_generator(task.seed, "gain"))  # [draws, points]
    gains = [doubling_gain(fit_curve(numbers, 1 - row), total) for row in draws[:GAIN_DRAWS]]
    fitted = fit_curve(numbers, 1 - right.mean(axis=1))
    rows = zip(numbers, right, draws.T, strict=True)
    points = tuple(
        CurvePoint(round(float(number)), float(row.mean()), percentiles(drawn)) for number, row, drawn in rows
    )
    return MeasuredCurve(points, fitted, doubling_gain(fitted, total), percentiles(np.asarray(gains)))


def learning_curve(task: Task, penalties: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    """Train the linear probe on fewer and fewer of each fold's training videos.

    The penalty stays that of the fold: it is a prior on the weights, which does not depend on how many videos there
    are.

    Args:
        task: The videos and folds.
        penalties: C of each fold.

    Returns:
        Numbers of training videos, mean over the folds, `[k]`; and for each how often each video was classified
        correctly, `[k, n]` in [0, 1].
    """
    features, labels = task.features.pooled, task.labels
    numbers, right = list[float](), list[FloatArray]()
    for fraction in CURVE_FRACTIONS:
        counts, correct = list[int](), np.zeros(len(labels))
        repeats = 1 if fraction == 1 else CURVE_REPEATS
        for place, (fold, penalty) in enumerate(zip(task.folds, penalties, strict=True)):
            for repeat in range(repeats):
                rng = numpy_generator(task.seed, "curve", place, repeat)
                rows = some_of_each_class(fold.train, labels, fraction, rng=rng)
                probe = fit_linear(features[rows], labels[rows], penalty=penalty, num_classes=task.num_classes)
                answers = probe.probabilities(features[fold.test]).argmax(axis=1)
                correct[fold.test] += (answers == labels[fold.test]) / repeats
                counts.append(len(rows))
        number = float(np.mean(counts))
        if not numbers or number > numbers[-1]:  # of very few videos, the smallest fractions are alike
            numbers.append(number)
            right.append(correct)
    return np.asarray(numbers), np.stack(right)


def some_of_each_class(rows: IntArray, labels: IntArray, fraction: float, *, rng: np.random.Generator) -> IntArray:
    """Draw this fraction of the rows of each class, at least one of each."""
    parts = []
    for label in np.unique(labels[rows]):
        own = rng.permutation(rows[labels[rows] == label])
        parts.append(own[: max(round(fraction * len(own)), 1)])
    return np.sort(np.concatenate(parts))


def _out_of_fold(task: Task, kind: str, *, tell: Callable[[str], None]) -> tuple[FloatArray, list[float]]:
    """Return the probabilities of each video by the fold that did not train on it, and what each fold chose."""
    pooled, tokens, num_classes = task.features.pooled, task.features.tokens, task.num_classes
    probabilities, choices = np.zeros((len(task.labels), num_classes)), list[float]()
    for number, (train, test) in enumerate(task.folds):
        inner = derive_seed(task.seed, "inner", number)
        labels, groups = task.labels[train], task.groups[train]
        chosen: float
        match kind:
            case "linear":
                chosen = choose_penalty(pooled[train], labels, groups, num_classes=num_classes, seed=inner)
                probe = fit_linear(pooled[train], labels, penalty=chosen, num_classes=num_classes)
                probabilities[test] = probe.probabilities(pooled[test])
            case "k-NN":
                k = choose_neighbours(pooled[train], labels, groups, num_classes=num_classes, seed=inner)
                probabilities[test] = neighbour_probabilities(
                    pooled[train], labels, pooled[test], k=k, num_classes=num_classes
                )
                chosen = k
            case _:
                known, asked = tokens[torch.from_numpy(train)], tokens[torch.from_numpy(test)]
                chosen = choose_attentive_penalty(known, labels, groups, num_classes=num_classes, seed=inner)
                attentive = fit_attentive(known, labels, penalty=chosen, num_classes=num_classes, seed=inner)
                probabilities[test] = attentive.probabilities(asked)
                tell(f"attentive: fold {number + 1} of {len(task.folds)}")
        choices.append(chosen)
    return probabilities, choices


def _judged(task: Task, kind: str, *, found: dict[str, FloatArray], choices: Sequence[float]) -> ProbeAccuracy:
    correct, linear = (found[name].argmax(axis=1) == task.labels for name in (kind, "linear"))
    difference = None
    if kind != "linear":
        paired = correct.astype(np.float64) - linear
        draws = group_draws(paired[None], task.groups, rng=numpy_generator(task.seed, "difference"))[:, 0]
        difference = (float(paired.mean()), percentiles(draws))
    return ProbeAccuracy(
        name=kind,
        accuracy=float(correct.mean()),
        interval=accuracy_interval(correct, task.groups, rng=numpy_generator(task.seed, "interval")),
        chosen=tuple(choices),
        minus_linear=difference,
    )
