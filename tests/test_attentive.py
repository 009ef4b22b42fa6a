"""The attentive probe sees what a mean over tokens loses: when something happens, and where."""

from __future__ import annotations

import numpy as np
import torch

from videomae.attentive import QUERIES, AttentivePool, fit_attentive
from videomae.probing.linear import fit_linear


def test_the_order_of_two_events_is_learnt_where_the_mean_knows_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(120) % 2
    tokens = 0.3 * torch.randn(120, 8, 4, 12, generator=generator)
    for number, label in enumerate(labels):  # class 0: A in the first half, B in the second; class 1: B, then A
        first, second = (0, 1) if label == 0 else (1, 0)
        tokens[number, :4, :, first] += 1
        tokens[number, 4:, :, second] += 1
    train, test = slice(0, 80), slice(80, 120)
    probe = fit_attentive(tokens[train].half(), labels[train], penalty=0.1, num_classes=2, seed=0)
    found = probe.probabilities(tokens[test].half()).argmax(axis=1)
    assert (found == labels[test]).mean() >= 0.95
    means = tokens.mean(dim=(1, 2)).double().numpy()
    linear = fit_linear(means[train], labels[train], penalty=0.1, num_classes=2).probabilities(means[test])
    assert (linear.argmax(axis=1) == labels[test]).mean() < 0.75


def test_queries_learn_where_to_look() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = np.arange(160) % 2
    tokens = torch.randn(160, 4, 9, 12, generator=generator)
    for number, label in enumerate(labels):  # one token in 36 is marked, and carries the class
        place = int(torch.randint(36, (1,), generator=generator))
        tokens[number].view(36, 12)[place, 0] = 8.0
        tokens[number].view(36, 12)[place, 1] = 4.0 * (2 * int(label) - 1)
    probe = fit_attentive(tokens[:100], labels[:100], penalty=0.1, num_classes=2, seed=0)
    assert (probe.probabilities(tokens[100:]).argmax(axis=1) == labels[100:]).mean() >= 0.9
    scaled = ((tokens[100:] - probe.mean) / probe.std).flatten(1, 2)  # [60, 36, 12]
    weights = (scaled @ probe.pool.query.mT / 12**0.5).softmax(dim=1).amax(dim=2)  # [60, 36], of the keenest query
    marked = tokens[100:].flatten(1, 2)[:, :, 0] == 8.0
    assert weights[marked].mean() > 2 * weights[~marked].mean()
    means = tokens.mean(dim=(1, 2)).double().numpy()
    linear = fit_linear(means[:100], labels[:100], penalty=0.1, num_classes=2).probabilities(means[100:])
    assert (linear.argmax(axis=1) == labels[100:]).mean() < 0.85


def test_at_the_start_each_query_is_a_window_of_its_own_and_the_head_says_nothing() -> None:
    tokens = torch.randn(5, 8, 2, 6)
    pool = AttentivePool(tokens, num_classes=3)
    weights = pool.time.softmax(dim=1)
    centers = (weights * torch.arange(8)).sum(dim=1)
    assert centers.shape == (QUERIES,)
    assert (centers.diff() > 1).all()
    assert torch.equal(pool(tokens), torch.zeros(5, 3))


def test_a_fit_is_a_function_of_its_seed() -> None:
    tokens, labels = torch.randn(600, 2, 1, 4), np.arange(600) % 2
    first, again, other = (
        fit_attentive(tokens, labels, penalty=0.1, num_classes=2, seed=seed).probabilities(tokens[:5])
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
