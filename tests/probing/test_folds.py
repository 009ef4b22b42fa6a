"""No group is on both sides of a fold, whatever the sizes of groups and classes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from videomae.probing.folds import group_folds
from videomae.probing.linear import chosen


@pytest.mark.parametrize("seed", range(5))
def test_each_video_is_tested_once_by_a_fold_that_has_none_of_its_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 17, 90)
    labels = rng.integers(0, 3, 90)
    folds = list(group_folds(labels, groups, folds=5, seed=seed))
    assert len(folds) == 5
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(90))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert len(fold.train) + len(fold.test) == 90


def test_folds_are_those_of_the_seed() -> None:
    labels, groups = np.arange(60) % 3, np.arange(60) // 2

    def tests(seed: int) -> list[list[int]]:
        return [fold.test.tolist() for fold in group_folds(labels, groups, folds=5, seed=seed)]

    assert tests(0) == tests(0)
    assert tests(0) != tests(1)


@pytest.mark.parametrize(("labels", "groups"), [([0, 1, 2], [0, 1, 2]), ([0, 0, 1, 1], [5, 5, 5, 5])])
def test_what_cannot_be_divided_has_no_folds_and_the_middle_choice(labels: list[int], groups: list[int]) -> None:
    assert list(group_folds(np.array(labels), np.array(groups), folds=4, seed=0)) == []
    assert chosen((1, 2, 3), lambda *_: 0.0, np.array(labels), np.array(groups), seed=0) == 2


def test_few_groups_make_fewer_folds_without_a_warning() -> None:
    labels, groups = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folds = list(group_folds(labels, groups, folds=5, seed=0))
    assert sum(len(fold.test) for fold in folds) == 6
    assert len(folds) <= 3
