"""Fine-tuning with tokens merged: gradients, what it takes, what a run keeps of it, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kept_bytes import kept_bytes
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from processes import in_processes
from tiny_models import make_model, random_video
from videomae.engine.runlog import MetricsLog
from videomae.errors import CheckpointError, ConfigError
from videomae.inference.predictor import Predictor
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.recipes.schema import FinetuneRecipe, load_recipe
from videomae.train.adapting import choose_trained
from videomae.train.configs import PlanConfig
from videomae.train.cost import classification_clip_cost
from videomae.train.dry_run import dry_run
from videomae.train.finetune import finetune
from videomae.train.memory import step_memory
from videomae.train.merging import MergingModule, merged_tokens, merging_module
from videomae.train.trained import trained_parts

Finetune = Callable[..., FinetuneRecipe]
CONFIG = VideoMAEConfig(
    image_size=64,
    num_frames=8,
    hidden_size=128,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=512,
    use_mean_pooling=True,
    num_labels=5,
)
SPEED = 1.5
FROZEN = [(), ("--head.freeze", "1"), ("--lora.rank", "4")]


def trained_model(
    finetune_recipe: Finetune, words: tuple[str, ...]
) -> tuple[VideoMAEForVideoClassification, MergingModule, int]:
    """Return a model, what a step calls, and how many tokens a block merges."""
    if "--lora.rank" in words:
        pytest.importorskip("peft")
    recipe = finetune_recipe("--speed", str(SPEED), *words)
    model = VideoMAEForVideoClassification(CONFIG).train()
    choose_trained(model, recipe)
    called = merging_module(model, recipe)
    assert called is not None
    return model, called, merged_tokens(model, recipe)


def test_the_gradient_is_that_of_what_is_computed_with_sizes_drop_path_and_dropout() -> None:
    settings = {"drop_path_rate": 0.3, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = make_model(VideoMAEForVideoClassification, **settings).double().train()
    called, video = MergingModule(model, 1.5), random_video(model.config).double()

    def loss() -> Tensor:
        torch.manual_seed(3)
        return F.cross_entropy(called(video).logits, torch.tensor([1, 4]))

    loss().backward()
    parameters = list(model.parameters())
    step = [torch.randn_like(one) for one in parameters]
    expected = sum(float((one.grad * way).sum()) for one, way in zip(parameters, step, strict=True))
    values = []
    with torch.no_grad():
        for size in (1e-6, -2e-6):
            torch._foreach_add_(parameters, step, alpha=size)
            values.append(loss().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)
    torch.manual_seed(4)
    other = F.cross_entropy(called(video).logits, torch.tensor([1, 4])).item()
    assert other != pytest.approx(values[0], rel=1e-3), "nothing was dropped"


def test_blocks_that_are_computed_again_give_the_same_gradients_and_keep_less() -> None:
    model = make_model(VideoMAEForVideoClassification, drop_path_rate=0.3).train()
    called, video = MergingModule(model, 1.5), random_video(model.config)
    found, kept = [], []
    for again in (0, 1):
        model.videomae.encoder.checkpoint_every = again
        kept.append(kept_bytes(model, lambda: called(video), bf16=False))
        torch.manual_seed(3)
        model.zero_grad()
        called(video).logits.square().sum().backward()
        found.append(torch.cat([one.grad.flatten() for one in model.parameters()]))
    assert torch.equal(*found)
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("words", FROZEN)
def test_torch_counts_the_operations_of_a_merging_step_as_the_plan_does(
    finetune_recipe: Finetune, words: tuple[str, ...]
) -> None:
    model, called, merged = trained_model(finetune_recipe, words)
    expected = classification_clip_cost(CONFIG, trained_parts(model, merged=merged), merged=merged).step_flops
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        called(random_video(CONFIG, batch=1)).logits.sum().backward()
    assert expected <= counter.get_total_flops() < 1.03 * expected  # more: finding the tokens, and counting them
    assert expected < classification_clip_cost(CONFIG, trained_parts(model)).step_flops / (SPEED - 0.05)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("words", FROZEN)
def test_what_a_merging_step_keeps_is_what_the_plan_says(
    finetune_recipe: Finetune, words: tuple[str, ...], bf16: bool
) -> None:
    model, called, merged = trained_model(finetune_recipe, words)
    measured = kept_bytes(model, lambda: called(random_video(CONFIG, batch=3)), bf16=bf16)
    memory = step_memory(
        CONFIG,
        clips=3,
        visible=native_grid(CONFIG).num_tokens,
        decoded=0,
        bf16=bf16,
        num_parameters=sum(one.numel() for one in model.parameters()),
        num_matrix_values=sum(one.numel() for one in model.parameters() if one.ndim > 1),
        trained=trained_parts(model, bf16=bf16, merged=merged),
        merged=merged,
    )
    assert memory.activations + memory.copies == pytest.approx(measured, rel=0.1 if bf16 else 0.04)


@pytest.mark.slow
def test_a_run_is_recorded_and_resumed_at_its_speed_and_its_model_takes_all_tokens(
    finetune_recipe: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--schedule.steps", "4", "--loop.checkpoint_steps", "2", "--loop.keep_checkpoints", "2")
    recipe = finetune_recipe(*words, "--speed", "1.1")
    out = tmp_path / "run"
    finetune(recipe, out=out)
    said = capsys.readouterr().out
    assert "speed 1.1: " in said
    assert (
        "in training; evaluation takes --evaluation.speed, and videomae predict --speed, which are 1 unless" in said
    )
    assert json.loads((out / "model" / "videomae.json").read_text())["training"]["recipe"]["speed"] == 1.1
    assert Predictor(out / "model", device="cpu").merging is None
    whole = losses(out)
    (out / "checkpoints" / "checkpoint-00000004.pt").unlink()
    (out / "evaluation.json").unlink()
    finetune(load_recipe(FinetuneRecipe, out / "recipe.yaml"), out=out, resume=True)
    assert losses(out) == whole
    with pytest.raises(
        CheckpointError, match=r"speed: 1\.1 -> 1\.0, but the weights have been trained on clips with"
    ):
        finetune(finetune_recipe(*words), out=out, resume=True)
    finetune(finetune_recipe(*words), out=tmp_path / "plain")
    assert losses(tmp_path / "plain")[1:] != whole[1:]


def losses(run: Path) -> list[float]:
    return [one["loss"] for one in MetricsLog.read(run / "metrics.jsonl") if "loss" in one]


@pytest.mark.slow
def test_processes_and_micro_batches_give_the_losses_of_one_process(
    finetune_recipe: Finetune, tmp_path: Path
) -> None:
    words = ("--speed", "1.1", "--loop.precision", "fp32", "--head.drop_path_rate", "0.2")
    finetune(finetune_recipe(*words), out=tmp_path / "alone")
    finetune(finetune_recipe(*words, "--loop.micro_batch", "1"), out=tmp_path / "parts")
    in_processes(2, train, finetune_recipe(*words, "--loop.micro_batch", "1"), tmp_path / "two")
    for name in ("parts", "two"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "alone"), rel=2e-6)


def train(recipe: FinetuneRecipe, out: Path) -> None:
    finetune(recipe, out=out)


def test_at_speed_one_a_step_calls_the_model_itself(finetune_recipe: Finetune) -> None:
    assert merging_module(make_model(VideoMAEForVideoClassification), finetune_recipe()) is None


def test_a_dry_run_tells_what_is_merged_and_counts_less(finetune_recipe: Finetune) -> None:
    plain, merging = (dry_run(finetune_recipe(*words), PlanConfig()) for words in ((), ("--speed", "1.1")))
    assert [line for line in merging if "speed 1.1: " in line and " 1.1" in line.split("every block")[1]]

    def number(lines: list[str], before: str) -> float:
        (line,) = (one for one in lines if one.startswith(before))
        return float(line.removeprefix(before).split()[0])

    assert 1.08 < number(plain, "operations: ") / number(merging, "operations: ") < 1.16


class OwnForward(VideoMAEForVideoClassification):
    """With a forward pass of its own."""

    def forward(self, *arguments: object, **settings: object) -> object:
        return super().forward(*arguments, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--speed", "1.1", "--parallel.kind", "fsdp"),
            r"speed is 1\.1 and parallel\.kind is 'fsdp': .*kind ddp, or",
        ),
        (("--speed", "1.1", "--loop.compile", "true"), r"speed is 1\.1 and loop\.compile is true: .* auto or false"),
        (("--speed", "9"), r"speed is 9, and merging all that can be merged of the 16 tokens .* use at most 1\.\d+"),
        (("--speed", "0.5"), r"speed is 0\.5; it is how many times fewer operations a clip takes: use 1 for all of"),
    ],
)
def test_what_does_not_go_with_merging_is_refused_before_the_run_folder_is_made(
    finetune_recipe: Finetune, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        finetune(finetune_recipe(*words), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_with_a_forward_pass_of_its_own_is_refused(finetune_recipe: Finetune, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"speed is 1\.1, and OwnForward has a forward pass of its own, .* speed 1"):
        finetune(finetune_recipe("--speed", "1.1"), out=tmp_path / "run", model_class=OwnForward)
