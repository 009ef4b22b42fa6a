"""How strongly the attentive probe is held back is chosen on other groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videomae.probing.attentive import choose_attentive_penalty


@pytest.mark.slow
def test_the_penalty_is_chosen_on_other_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 4)
    labels = rng.permutation(np.arange(20) % 2)[groups]
    tokens = torch.from_numpy(rng.normal(size=(20, 1, 1, 16))[groups]).float().expand(80, 4, 1, 16)
    assert choose_attentive_penalty(tokens, labels, groups, num_classes=2, seed=0) == 1e-4
    assert choose_attentive_penalty(tokens, labels, np.arange(80), num_classes=2, seed=0) > 1e-4
