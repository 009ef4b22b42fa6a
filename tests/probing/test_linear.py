"""The linear and the k-NN probe: arithmetic against scikit-learn, choices that see no group twice."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from videomae.probing.linear import (
    NEIGHBOURS,
    PENALTIES,
    choose_neighbours,
    choose_penalty,
    chosen,
    fit_linear,
    neighbour_probabilities,
)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_folded_probe_gives_the_probabilities_of_scaler_and_regression(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3.0, 1.0, (80, 6)) * np.array([1e-3, 1, 10, 1, 1e3, 1])
    features[:, 5] = 7.0  # constant
    labels = rng.integers(0, num_classes, 80)
    features[:, 1] += labels
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(features, labels)
    ours = fit_linear(features, labels, penalty=0.1, num_classes=num_classes)
    np.testing.assert_allclose(ours.probabilities(features), theirs.predict_proba(features), atol=1e-4)


def test_a_class_without_videos_is_never_predicted() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(20, 3)), np.repeat([0, 2], 10)
    probabilities = fit_linear(features, labels, penalty=1.0, num_classes=3).probabilities(features)
    assert probabilities[:, 1].max() < 1e-6
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_neighbours_vote_and_the_nearer_decide_a_tie() -> None:
    features = np.array([[1.0, 0.1], [1.0, 0.3], [-1.0, 0.1], [-1.0, -0.5]])
    labels = np.array([0, 1, 1, 0])
    asked = np.array([[1.0, 0.1], [-1.0, -0.5]])
    for k, expected in ((1, [0, 0]), (2, [0, 0])):
        found = neighbour_probabilities(features, labels, asked, k=k, num_classes=2)
        assert found.argmax(axis=1).tolist() == expected
        np.testing.assert_allclose(found.sum(axis=1), 1.0)


def leaky(rng: np.random.Generator, num_groups: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features that give the group away, and labels that are those of the group and of nothing else."""
    groups = np.repeat(np.arange(num_groups), 6)
    features = rng.normal(size=(num_groups, 24))[groups] + 0.05 * rng.normal(size=(len(groups), 24))
    return features, rng.permutation(np.arange(num_groups) % 2)[groups], groups


def test_the_penalty_is_strong_where_only_the_group_is_learnt() -> None:
    features, labels, groups = leaky(np.random.default_rng(0))
    kept = choose_penalty(features, labels, groups, num_classes=2, seed=0)
    split = choose_penalty(features, labels, np.arange(len(labels)), num_classes=2, seed=0)
    assert kept == min(PENALTIES)
    assert split > kept


def test_the_number_of_neighbours_is_not_chosen_by_those_of_the_own_group() -> None:
    features, labels, groups = leaky(np.random.default_rng(1))
    assert choose_neighbours(features, labels, np.arange(len(labels)), num_classes=2, seed=0) == NEIGHBOURS[0]
    seen: list[bool] = []

    def score(_: int, train: np.ndarray, test: np.ndarray) -> float:
        seen.append(bool(set(groups[train]) & set(groups[test])))
        return 0.0

    assert chosen((3, 1), score, labels, groups, seed=0) == 3
    assert seen
    assert not any(seen)
