"""Folds that keep groups together: no probe is tested on a video whose group it was trained or tuned on.

Random folds of clips that were cut from one recording measure whether a clip's neighbour was seen, not whether the
class is recognized.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.engine.seeding import derive_seed

IntArray = NDArray[np.int64]


class Fold(NamedTuple):
    """One division of the videos."""

    train: IntArray
    """Row numbers to fit on."""
    test: IntArray
    """Row numbers to predict; of other groups."""


def group_folds(labels: IntArray, groups: IntArray, *, folds: int, seed: int) -> Iterator[Fold]:
    """Divide videos into folds, classes as even as groups allow.

    Args:
        labels: `[n]` class ids.
        groups: `[n]` group of each video.
        folds: How many; fewer where there are not as many groups.
        seed: Of the order of the groups.

    Yields:
        The folds; each video is in `test` of one of them. A small class may be missing from either part. None of
        a single group, or where no class has two videos.

    Source: scikit-learn's StratifiedGroupKFold.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # half a training command's imports, which need no folds

    count = min(folds, len(np.unique(groups)), int(np.bincount(labels).max()))
    if count < 2:
        return
    # Not every number that fits NumPy's old generator: 32 bits.
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=derive_seed(seed, "folds") % 2**32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # it is spread as far as it goes
        divisions = list(splitter.split(labels, labels, groups))
    for train, test in divisions:
        if len(train) and len(test):
            yield Fold(train.astype(np.int64), test.astype(np.int64))
