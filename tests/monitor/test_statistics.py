"""Numbers about features, attention, gradients and errors, where the right answer is known."""

from __future__ import annotations

import pytest
import torch

from tiny_models import inputs_for, make_model
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.monitor.statistics import (
    attention_distances,
    attentive_probe_accuracy,
    content_fraction,
    effective_rank,
    explained_variance,
    gradient_norms,
    layer_groups,
    linear_probe_accuracy,
    neighbour_accuracy,
    relative_changes,
    usable_labels,
    weight_samples,
)

GROUPS = {"embeddings", "early", "middle", "late", "decoder"}


def test_effective_rank_counts_equally_strong_directions() -> None:
    orthogonal = torch.linalg.qr(torch.randn(40, 8)).Q
    assert effective_rank(orthogonal) == pytest.approx(8.0, rel=1e-3)
    assert effective_rank(orthogonal[:, :3]) == pytest.approx(3.0, rel=1e-3)
    assert effective_rank(torch.ones(10, 4)) == pytest.approx(1.0, abs=1e-3)
    assert effective_rank(torch.zeros(10, 4)) == 0.0


def test_content_is_what_differs_between_clips_at_one_position() -> None:
    positions, clips = torch.randn(1, 60, 5).expand(20, -1, -1), torch.randn(20, 60, 5)
    assert content_fraction(positions) == pytest.approx(0.0, abs=1e-6)
    assert content_fraction(clips) == pytest.approx(1.0, abs=0.05)
    assert content_fraction(positions + clips) == pytest.approx(0.5, abs=0.15)
    assert content_fraction(torch.ones(20, 6, 5)) == 0.0


def test_neighbors_and_probe_find_classes_that_are_apart_and_none_in_noise() -> None:
    labels = [0, 1, 2, 3] * 10
    centers = 3.0 * torch.randn(4, 16)
    apart = centers[labels] + 0.3 * torch.randn(40, 16)
    noise = torch.randn(40, 16)
    for accuracy in (neighbour_accuracy, linear_probe_accuracy):
        assert accuracy(apart, labels) == 1.0
        assert accuracy(noise, labels) < 0.5


def test_the_linear_probe_leaves_the_judged_clip_out() -> None:
    features, labels = torch.randn(12, 4), [0, 1] * 6
    right = []
    for left_out in range(12):
        kept = [place for place in range(12) if place != left_out]
        mean = features.double().mean(dim=0)
        x = features.double() - mean
        hot = torch.nn.functional.one_hot(torch.tensor(labels)).double()
        y = hot - hot.mean(dim=0)
        strength = 0.1 * (x @ x.T).diagonal().mean()
        weights = torch.linalg.solve(
            x[kept].T @ x[kept] + strength * torch.eye(4, dtype=x.dtype), x[kept].T @ y[kept]
        )
        right.append(int((x[left_out] @ weights).argmax()) == labels[left_out])
    assert linear_probe_accuracy(features, labels) == pytest.approx(sum(right) / 12)


def test_the_attentive_probe_tells_what_happened_first() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, groups = [number % 2 for number in range(48)], [str(number // 2) for number in range(48)]
    tokens = 0.3 * torch.randn(48, 8, 4, 12, generator=generator)
    for number, label in enumerate(labels):  # class 0: A, then B; class 1: B, then A
        tokens[number, :4, :, label] += 1
        tokens[number, 4:, :, 1 - label] += 1
    tokens = tokens.flatten(1, 2)  # [48, 32, 12]
    slices = torch.arange(8).repeat_interleave(4).expand(48, -1)
    assert attentive_probe_accuracy(tokens, slices, labels, groups) >= 0.9
    # Slices of unequal numbers of tokens have no position: what is told apart by nothing else is not told apart.
    assert attentive_probe_accuracy(tokens, slices.roll(1, dims=1), labels, groups) < 0.75
    noise = torch.randn(48, 32, 12, generator=generator)
    assert attentive_probe_accuracy(noise, slices, labels, groups) < 0.75


def test_clips_of_a_group_are_on_one_side_of_the_attentive_probe() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = 3 * torch.randn(12, 1, 64, generator=generator)  # what a recording looks like says nothing of others
    tokens = centers.repeat_interleave(4, dim=0) + 0.1 * torch.randn(48, 4, 64, generator=generator)
    labels = [number // 4 % 2 for number in range(48)]
    slices = torch.zeros(48, 4, dtype=torch.int64)
    apart = [str(number) for number in range(48)]
    assert attentive_probe_accuracy(tokens, slices, labels, apart) > 0.9
    assert attentive_probe_accuracy(tokens, slices, labels, [str(number // 4) for number in range(48)]) < 0.75


def test_the_attentive_probe_draws_nothing_from_the_global_generator() -> None:
    tokens, slices = torch.randn(24, 4, 8), torch.zeros(24, 4, dtype=torch.int64)
    before = torch.get_rng_state()
    with torch.no_grad():
        attentive_probe_accuracy(tokens, slices, [0, 1] * 12, [str(number) for number in range(24)])
    assert torch.equal(torch.get_rng_state(), before)


def test_classes_of_one_clip_are_not_judged() -> None:
    assert usable_labels([0, 0, 1, 2, 2, None]) == [0, 1, 3, 4]
    assert usable_labels([0, 0, 1]) == []
    assert usable_labels([None, None]) == []


def test_attention_to_oneself_has_no_distance_and_uniform_attention_the_mean() -> None:
    places = torch.tensor([[[0.0, 0, 0], [0, 0, 3], [0, 4, 0]]])  # 3, 4 and 5 apart
    own = torch.eye(3)[None, None]
    uniform = torch.full((1, 1, 3, 3), 1 / 3)
    assert attention_distances([own, uniform], places) == pytest.approx([0.0, 2 * (3 + 4 + 5) / 9])


def test_explained_variance_is_told_by_time_and_position() -> None:
    hidden = torch.tensor([[0, 5], [0, 6]])  # of 2 x 2 x 2 tokens; 1, 2, 3, 4 and 7 are never hidden
    found = explained_variance(torch.tensor([[0.5, 1.0], [0.0, 2.0]]), torch.ones(2, 2), hidden, (2, 2, 2))
    assert found["time"] == [0.75, -0.5]
    assert found["position"] == [[0.75, 0.0], [-1.0, None]]


def test_every_parameter_has_a_group_and_norms_add_up() -> None:
    model = make_model(VideoMAEForPreTraining)
    groups = layer_groups([name for name, _ in model.named_parameters()], model.config.num_hidden_layers)
    assert set(groups.values()) == GROUPS
    assert groups["videomae.encoder.layer.0.layernorm_before.weight"] == "early"
    assert groups["videomae.encoder.layer.1.layernorm_before.weight"] == "middle"
    assert groups["videomae.encoder.layer.2.layernorm_before.weight"] == "late"
    model(**inputs_for(model)).loss.backward()
    norms = gradient_norms(model, groups)
    total = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None]).norm()
    assert sum(norm**2 for norm in norms.values()) == pytest.approx(float(total) ** 2, rel=1e-5)


def test_a_change_of_the_weights_is_measured_by_group() -> None:
    model = make_model(VideoMAEForPreTraining)
    groups = layer_groups([name for name, _ in model.named_parameters()], model.config.num_hidden_layers)
    before = weight_samples(model, groups)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if groups[name] == "decoder":
                parameter.mul_(1.1)
    changes = relative_changes(before, weight_samples(model, groups))
    assert changes == pytest.approx(dict.fromkeys(GROUPS, 0.0) | {"decoder": 0.1}, abs=1e-5)
