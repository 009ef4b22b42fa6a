"""Muon beside AdamW: who updates what, and that a resumed run goes on to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from videomae.engine.checkpoint import load_checkpoint, save_checkpoint
from videomae.engine.muon import Muon, MuonWithAdamW
from videomae.engine.optim import OptimConfig, build_optimizer, param_groups, update_if_finite
from videomae.engine.schedule import set_learning_rate
from videomae.errors import ConfigError

CONFIG = OptimConfig(base_lr=1e-3, min_lr=0.0, betas=(0.9, 0.95), optimizer="muon", muon_lr=0.05)
MATRICES = ("0.weight", "2.weight")


def make(config: OptimConfig = CONFIG) -> tuple[nn.Module, MuonWithAdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
    groups = param_groups(model.named_parameters(), weight_decay=0.05, matrices=MATRICES)
    optimizer = build_optimizer(groups, config)
    assert isinstance(optimizer, MuonWithAdamW)
    return model, optimizer


def train(model: nn.Module, optimizer: MuonWithAdamW, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        loss = model(inputs).square().mean()
        loss.backward()
        set_learning_rate(optimizer, 1e-3 / step)
        update_if_finite(optimizer, loss=loss, grad_norm=torch.ones(()))
        optimizer.zero_grad()


def test_muon_updates_the_named_matrices_and_adamw_everything_else() -> None:
    model, optimizer = make()
    names = {id(one): name for name, one in model.named_parameters()}
    by_muon = {names[id(one)] for group in optimizer.muon.param_groups for one in group["params"]}
    by_adamw = {names[id(one)] for group in optimizer.adamw.param_groups for one in group["params"]}
    assert by_muon == set(MATRICES)
    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw


def test_both_follow_one_schedule_each_from_its_own_peak() -> None:
    _, optimizer = make()
    set_learning_rate(optimizer, CONFIG.base_lr / 4)
    assert {group["lr"] for group in optimizer.adamw.param_groups} == {CONFIG.base_lr / 4}
    assert [group["lr"] for group in optimizer.muon.param_groups] == pytest.approx([CONFIG.muon_lr / 4])


def test_an_update_of_a_matrix_is_about_orthogonal() -> None:
    model, optimizer = make()
    weight = model[2].weight
    before = weight.detach().clone()
    loss = model(torch.randn(64, 6)).square().mean()
    loss.backward()
    optimizer.step()
    update = (before * (1 - CONFIG.muon_lr * 0.05) - weight.detach()) / CONFIG.muon_lr
    # Newton-Schulz leaves singular values between about 0.5 and 1.5, but for those that were all but zero.
    assert torch.linalg.svdvals(update)[:3] == pytest.approx([1.0, 1.0, 1.0], abs=0.5)


def test_in_bfloat16_an_update_is_torchs_to_the_bit() -> None:
    for shape in ((6, 8), (8, 6), (8, 8)):
        one = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        other = nn.Parameter(one.detach().clone())
        ours = Muon([{"params": [one]}], lr=0.05, weight_decay=0.1, dtype=torch.bfloat16)
        torchs = torch.optim.Muon([other], lr=0.05, weight_decay=0.1)
        for step in range(3):
            for matrix in (one, other):
                matrix.grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
            ours.step()
            torchs.step()
            assert torch.equal(one, other)
        assert torch.equal(ours.state[one]["momentum_buffer"], torchs.state[other]["momentum_buffer"])


def test_in_float32_an_update_differs_from_bfloat16s_by_rounding_alone() -> None:
    updates = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = nn.Parameter(torch.zeros(16, 24))
        matrix.grad = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
        Muon([{"params": [matrix]}], lr=1.0, weight_decay=0.0, dtype=dtype).step()
        updates.append(matrix.detach())
    assert not torch.equal(updates[0], updates[1])
    assert (updates[0] - updates[1]).norm() < 0.03 * updates[0].norm()


@pytest.mark.parametrize("hardware", [True, False])
def test_the_products_are_in_what_the_processor_multiplies_in_hardware(
    hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videomae.engine.muon.has_bf16", lambda device: hardware)
    seen: list[torch.dtype] = []

    def noted(matrix: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        seen.append(matrix.dtype)
        return matrix

    monkeypatch.setattr("videomae.engine.muon.orthogonalized", noted)
    model, optimizer = make()
    train(model, optimizer, range(1, 2))
    assert set(seen) == {torch.bfloat16 if hardware else torch.float32}


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    straight, optimizer = make()
    train(straight, optimizer, range(1, 9))
    first, optimizer = make()
    train(first, optimizer, range(1, 5))
    state = {"model": first.state_dict(), "optimizer": optimizer.state_dict()}
    path = save_checkpoint(tmp_path, step=4, state=state, keep=1)
    resumed, optimizer = make()
    saved = load_checkpoint(path)
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    train(resumed, optimizer, range(5, 9))
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    model, optimizer = make()
    train(model, optimizer, range(1, 3))
    before = [one.detach().clone() for one in model.parameters()]
    model(torch.randn(5, 6)).square().mean().backward()
    update_if_finite(optimizer, loss=torch.tensor(float("nan")), grad_norm=torch.ones(()))
    for one, other in zip(before, model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optim.optimizer is 'sgd'; it is 'adamw' or 'muon'"),
        ({"muon_lr": 0.0}, "optim.muon_lr is 0; a learning rate is above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**{"base_lr": 1e-3, "min_lr": 0.0, "betas": (0.9, 0.95), **changes})  # type: ignore[arg-type]


def test_a_model_of_matrices_alone_is_refused() -> None:
    model = nn.Linear(4, 4, bias=False)
    groups = param_groups(model.named_parameters(), weight_decay=0.0, matrices=("weight",))
    with pytest.raises(ConfigError, match="every parameter is a matrix: use 'adamw' for this model"):
        build_optimizer(groups, CONFIG)
