"""How strongly the attentive probe is held back, chosen on groups that it was not fitted on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.attentive import fit_attentive
from videomae.probing.linear import chosen, log_likelihood

IntArray = NDArray[np.int64]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
INNER_FOLDS = 3


def choose_attentive_penalty(
    tokens: Tensor, labels: IntArray, groups: IntArray, *, num_classes: int, seed: int
) -> float:
    """Return the penalty with the smallest log loss on groups that were not fitted."""

    def score(penalty: float, train: IntArray, test: IntArray) -> float:
        probe = fit_attentive(
            tokens[torch.from_numpy(train)], labels[train], penalty=penalty, num_classes=num_classes, seed=seed
        )
        return log_likelihood(probe.probabilities(tokens[torch.from_numpy(test)]), labels[test])

    return chosen(PENALTIES, score, labels, groups, seed=seed, folds=INNER_FOLDS)
