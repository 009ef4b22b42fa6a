"""The linear probe, logistic regression on standardized features, and the k-nearest-neighbours probe.

`n` videos, `D` features, `K` classes. Strength of the penalty, and k, are chosen by cross-validation inside the
training videos, with groups kept together there too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from videomae.probing.folds import group_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Choice = TypeVar("Choice", int, float)

INNER_FOLDS = 4
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""C of scikit-learn's LogisticRegression: larger is a weaker penalty."""
NEIGHBOURS = (1, 3, 5, 10, 20)
MAX_ITERATIONS = 500
SMALLEST = 1e-12  # probability in a logarithm


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of features as they are; their standardization is folded in."""

    weight: FloatArray
    """`[K, D]`."""
    bias: FloatArray
    """`[K]`."""

    def probabilities(self, features: FloatArray) -> FloatArray:
        """Return `[n, K]` for features `[n, D]`."""
        logits = features @ self.weight.T + self.bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
        return result


def standardization(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of each feature, `[D]` each; a constant feature gets 1."""
    mean, std = features.mean(axis=0), features.std(axis=0)
    return mean, np.where(std > 1e-6 * max(float(std.max()), SMALLEST), std, 1.0)


def fit_linear(features: FloatArray, labels: IntArray, *, penalty: float, num_classes: int) -> LinearProbe:
    """Fit multinomial logistic regression with an L2 penalty.

    Args:
        features: `[n, D]`.
        labels: `[n]` class ids. A class without videos gets a probability of almost zero.
        penalty: C, see `PENALTIES`.
        num_classes: K.
    """
    mean, std = standardization(features)
    classes = np.unique(labels)
    weight, bias = np.zeros((num_classes, features.shape[1])), np.full(num_classes, np.log(SMALLEST))
    if len(classes) == 1:
        bias[classes[0]] = 0.0
        return LinearProbe(weight, bias)
    model = LogisticRegression(C=penalty, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties; they are tried, and not chosen if bad
        model.fit((features - mean) / std, labels)
    if len(classes) == 2:  # scikit-learn has one row, the sigmoid's; a softmax over two halves is the same
        halves = (
            np.concatenate([-model.coef_, model.coef_]) / 2,
            np.concatenate([-model.intercept_, model.intercept_]) / 2,
        )
    else:
        halves = model.coef_, model.intercept_
    weight[classes] = halves[0] / std
    bias[classes] = halves[1] - weight[classes] @ mean
    return LinearProbe(weight, bias)


def choose_penalty(features: FloatArray, labels: IntArray, groups: IntArray, *, num_classes: int, seed: int) -> float:
    """Return the penalty with the smallest log loss on groups that were not fitted."""

    def score(penalty: float, train: IntArray, test: IntArray) -> float:
        probe = fit_linear(features[train], labels[train], penalty=penalty, num_classes=num_classes)
        return log_likelihood(probe.probabilities(features[test]), labels[test])

    return chosen(PENALTIES, score, labels, groups, seed=seed)


def choose_neighbours(
    features: FloatArray, labels: IntArray, groups: IntArray, *, num_classes: int, seed: int
) -> int:
    """Return the k with the highest accuracy on groups that were not among the neighbours."""

    def score(k: int, train: IntArray, test: IntArray) -> float:
        found = neighbour_probabilities(features[train], labels[train], features[test], k=k, num_classes=num_classes)
        return float((found.argmax(axis=1) == labels[test]).sum())

    return chosen(NEIGHBOURS, score, labels, groups, seed=seed)


def neighbour_probabilities(
    features: FloatArray, labels: IntArray, asked: FloatArray, *, k: int, num_classes: int
) -> FloatArray:
    """Return the classes' parts among the k nearest videos, by cosine of standardized features.

    Args:
        features: `[n, D]`, with labels.
        labels: `[n]`.
        asked: `[m, D]`, to be classified.
        k: Neighbours, at most n.
        num_classes: K.

    Returns:
        `[m, K]`. Of classes with equally many neighbours, the one whose neighbours are nearer has a little more.
    """
    mean, std = standardization(features)
    known, wanted = (_unit((one - mean) / std) for one in (features, asked))
    similarity = wanted @ known.T  # [m, n]
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]  # [m, k]
    votes = 1.0 + 1e-6 * np.take_along_axis(similarity, nearest, axis=1)
    counts = np.zeros((len(asked), num_classes))
    np.add.at(counts, (np.arange(len(asked))[:, None], labels[nearest]), votes)
    result: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return result


def chosen(
    choices: Sequence[Choice],
    score: Callable[[Choice, IntArray, IntArray], float],
    labels: IntArray,
    groups: IntArray,
    *,
    seed: int,
    folds: int = INNER_FOLDS,
) -> Choice:
    """Return the choice with the highest sum of scores over inner folds; of equal ones the first.

    Where the training videos cannot be divided, it is the one in the middle.

    Args:
        choices: What there is to choose from.
        score: Takes a choice and the rows to fit on and to judge by.
        labels: `[n]` of the training videos.
        groups: `[n]`; no group is on both sides of an inner fold.
        seed: Of the inner folds.
        folds: How many.
    """
    inner = list(group_folds(labels, groups, folds=folds, seed=seed))
    if not inner:
        return choices[len(choices) // 2]  # nothing to judge by
    sums = [sum(score(choice, fold.train, fold.test) for fold in inner) for choice in choices]
    return choices[int(np.argmax(sums))]


def log_likelihood(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the sum of the logarithms of the true classes' probabilities; `[n, K]` and `[n]`."""
    return float(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], SMALLEST)).sum())


def _unit(rows: FloatArray) -> FloatArray:
    result: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST)
    return result
