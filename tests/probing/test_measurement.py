"""The whole measurement on made-up features: what separates is learnt, a leak through groups is not."""

from __future__ import annotations

import numpy as np
import pytest

from made_up_features import made_up
from videomae.probing.configs import ProbeConfig
from videomae.probing.folds import group_folds
from videomae.probing.measurement import Measured, Task, learning_curve, measure, some_of_each_class

QUICK = ProbeConfig(attentive=False)


def silent(_: str) -> None:
    """Take a line."""


@pytest.mark.slow
def test_a_planted_leak_through_groups_is_not_mistaken_for_recognition() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    pooled = rng.normal(size=(40, 24))[groups] + 0.05 * rng.normal(size=(240, 24))
    labels = rng.permutation(np.arange(40) % 2)[groups]  # the group's, and nothing in the features beyond the group
    apart = measure(*made_up(pooled, labels, groups), QUICK, tell=silent)
    mixed = measure(*made_up(pooled, labels, np.arange(240)), QUICK, tell=silent)
    for ours, random_folds in zip(apart.probes, mixed.probes, strict=True):
        assert ours.accuracy < 0.65
        assert ours.interval.low < 0.5
        assert random_folds.accuracy > 0.95
    assert apart.advice.startswith("fine-tune, or try another encoder")


@pytest.fixture(scope="module")
def separable() -> Measured:
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1, 2], 40)
    groups = np.arange(120) // 3
    pooled = rng.normal(size=(120, 12))
    pooled[np.arange(120), labels] += 5.0
    return measure(*made_up(pooled, labels, groups), ProbeConfig(folds=3), tell=silent)


@pytest.mark.slow
def test_a_separable_set_is_learnt_by_all_probes(separable: Measured) -> None:
    assert [probe.name for probe in separable.probes] == ["linear", "k-NN", "attentive"]
    for probe in separable.probes:
        assert probe.accuracy >= 0.95
        assert probe.interval.low > 0.9
    assert separable.advice.startswith("the probe is enough")
    assert separable.probes[0].minus_linear is None
    low, high = separable.probes[2].minus_linear[1].low, separable.probes[2].minus_linear[1].high
    assert low <= separable.probes[2].minus_linear[0] <= high


@pytest.mark.slow
def test_the_learning_curve_rises_with_the_labels_and_ends_at_the_probe(separable: Measured) -> None:
    numbers = [point.num_labels for point in separable.curve.points]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 80
    assert separable.curve.points[0].accuracy < separable.curve.points[-1].accuracy
    assert separable.curve.points[-1].accuracy == pytest.approx(separable.probes[0].accuracy)


def test_fewer_labels_are_some_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [40, 20, 2])
    rows = some_of_each_class(np.arange(62), labels, 0.25, rng=np.random.default_rng(0))
    assert np.bincount(labels[rows]).tolist() == [10, 5, 1]


def test_the_learning_curve_tests_on_other_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 6)
    pooled = rng.normal(size=(30, 16))[groups]
    labels = rng.permutation(np.arange(30) % 2)[groups]
    features, _ = made_up(pooled, labels, groups)
    folds = tuple(group_folds(labels, groups, folds=5, seed=0))
    _, right = learning_curve(Task(features, labels, groups, folds, seed=0), [1.0] * 5)
    assert right.mean(axis=1).max() < 0.7


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures() -> None:
    rng = np.random.default_rng(2)
    given = made_up(rng.normal(size=(60, 5)), np.arange(60) % 2, np.arange(60) // 2)
    first, again = (measure(*given, QUICK, tell=silent) for _ in range(2))
    assert first.probes == again.probes
    assert first.curve == again.curve
    other = measure(*given, ProbeConfig(attentive=False, seed=1), tell=silent)
    assert other.probes != first.probes
