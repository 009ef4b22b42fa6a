"""A step on a GPU never waits for it: losses, norms and skipped updates stay there until they are read together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from videomae.engine.runlog import MetricsLog
from videomae.engine.step_graph import WARM_CALLS
from videomae.engine.workers import running_workers
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe
from videomae.train import loop as loop_module
from videomae.train.finetune import finetune
from videomae.train.pretrain import pretrain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

STEPS = 8
BAD_STEP = 5
GRAPH_STEPS = WARM_CALLS + 5
WORDS = ("--loop.device", "cuda", "--loop.log_steps", "100", "--loop.checkpoint_steps", "100")


class NanGradient(torch.autograd.Function):
    """The identity, with gradients that are all NaN."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * math.nan


@contextmanager
def watched(loader: Any) -> Iterator[Iterator[Any]]:
    """Let torch refuse to wait for the GPU in every step but the first two, which set things up, and the last."""

    def batches(items: Iterator[Any]) -> Iterator[Any]:
        for number, batch in enumerate(items, start=1):
            torch.cuda.set_sync_debug_mode("error" if 2 < number < STEPS else "default")
            yield batch

    try:
        with running_workers(loader) as items:
            yield batches(items)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def with_bad_step(base: type[Any], field: str) -> type[Any]:
    """Return a class of model that has NaN gradients in one of its steps."""

    class Faulty(base):  # type: ignore[misc]
        num_calls = 0

        def forward(self, *arguments: Any, **settings: Any) -> Any:
            output = super().forward(*arguments, **settings)
            type(self).num_calls += self.training
            if self.num_calls == BAD_STEP:
                setattr(output, field, NanGradient.apply(getattr(output, field)))
            return output

    return Faulty


def assert_one_step_was_skipped(run: Path) -> None:
    records = [record for record in MetricsLog.read(run / "metrics.jsonl") if "evaluation" not in record]
    assert [record["step"] for record in records if "skipped" in record] == [BAD_STEP]
    assert all(math.isfinite(record["loss"]) for record in records)
    assert len(records) == STEPS


def test_a_pretraining_step_does_not_wait_for_the_gpu(
    pretrain_recipe: Callable[..., PretrainRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "running_workers", watched)
    recipe = pretrain_recipe(*WORDS, "--schedule.steps", str(STEPS), "--optim.clip_grad", "1.0")
    model_class = with_bad_step(VideoMAEForPreTraining, "loss")
    pretrain(recipe, out=tmp_path / "run", model_class=model_class)
    assert_one_step_was_skipped(tmp_path / "run")


def test_a_fine_tuning_step_does_not_wait_for_the_gpu(
    finetune_recipe: Callable[..., FinetuneRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "running_workers", watched)
    recipe = finetune_recipe(*WORDS, "--schedule.steps", str(STEPS), "--optim.clip_grad", "1.0")
    model_class = with_bad_step(VideoMAEForVideoClassification, "logits")
    finetune(recipe, out=tmp_path / "run", model_class=model_class)
    assert_one_step_was_skipped(tmp_path / "run")


def test_a_skipped_update_on_the_gpu_leaves_everything_as_it_was() -> None:
    from videomae.engine.optim import OptimConfig, build_optimizer, param_groups, update_if_finite

    config = OptimConfig(base_lr=1e-2, min_lr=0.0, betas=(0.9, 0.95))
    nets = [torch.nn.Linear(70, 130, device="cuda") for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [build_optimizer(param_groups(net.named_parameters(), weight_decay=0.1), config) for net in nets]
    norm = torch.ones((), device="cuda")
    inputs = torch.randn(5, 70, device="cuda")
    for step in range(6):
        for number, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            if number == 1 and step in (0, 3):
                net(inputs).square().mean().mul(math.nan).backward()
                update_if_finite(optimizer, loss=norm, grad_norm=norm * math.nan)
                optimizer.zero_grad()
            net(inputs).square().mean().backward()
            if number == 1:
                update_if_finite(optimizer, loss=norm, grad_norm=norm)
            else:
                optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)
        states = optimizers[0].state[one], optimizers[1].state[other]
        assert all(torch.equal(states[0][name], states[1][name]) for name in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_run_has_the_same_losses_with_a_graph_and_without(
    kind: str,
    pretrain_recipe: Callable[..., PretrainRecipe],
    finetune_recipe: Callable[..., FinetuneRecipe],
    tmp_path: Path,
) -> None:
    words = ["--loop.device", "cuda", "--schedule.steps", str(GRAPH_STEPS), "--loop.compile", "false"]
    words += ["--optim.clip_grad", "1.0", "--optim.ema_decay", "0.9"]
    found = []
    for graphed in ("true", "false"):
        run = tmp_path / graphed
        if kind == "pretrain":
            pretrain(pretrain_recipe(*words, "--loop.cuda_graph", graphed), out=run)
        else:
            more = ("--head.drop_path_rate", "0.3", "--mix.mixup_alpha", "0.8", "--augment.erasing_prob", "0.5")
            finetune(finetune_recipe(*words, *more, "--loop.cuda_graph", graphed), out=run)
        found.append([one["loss"] for one in MetricsLog.read(run / "metrics.jsonl") if "loss" in one])
    assert len(found[0]) == GRAPH_STEPS
    assert found[0] == pytest.approx(found[1], rel=1e-4)
