"""What a step of partly frozen classifiers takes, counted by torch and by autograd itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from kept_bytes import kept_bytes
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.recipes.schema import FinetuneRecipe
from videomae.train.adapting import choose_trained
from videomae.train.configs import PlanConfig
from videomae.train.cost import classification_clip_cost
from videomae.train.dry_run import dry_run
from videomae.train.memory import StepMemory, step_memory
from videomae.train.trained import trained_parts

Finetune = Callable[..., FinetuneRecipe]
CONFIG = VideoMAEConfig(
    image_size=64,
    num_frames=8,
    hidden_size=96,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=384,
    use_mean_pooling=True,
    num_labels=5,
)
CLIPS = 3
WAYS = {
    "nothing frozen but the embeddings": (),
    "two blocks frozen": ("--head.freeze", "2"),
    "all blocks frozen": ("--head.freeze", "3"),
    "adapters": ("--lora.rank", "4"),
    "adapters with dropout": ("--lora.rank", "4", "--lora.dropout", "0.1"),
    "adapters everywhere": ("--lora.rank", "4", "--lora.targets", "query,key,value,dense"),
    "adapters of the MLP and of attention's output": ("--lora.rank", "4", "--lora.targets", "dense"),
    "adapters above a frozen block": ("--lora.rank", "4", "--head.freeze", "1"),
}


def partly_trained(
    finetune_recipe: Finetune, words: tuple[str, ...], config: VideoMAEConfig = CONFIG
) -> VideoMAEForVideoClassification:
    if any("lora" in word for word in words):
        pytest.importorskip("peft")
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(config).train()
    choose_trained(model, finetune_recipe(*words))
    if not words:
        model.videomae.embeddings.requires_grad_(False)
    return model


@pytest.mark.parametrize("words", WAYS.values(), ids=WAYS)
def test_torch_counts_the_operations_of_a_partly_frozen_step_as_the_walk_does(
    finetune_recipe: Finetune, words: tuple[str, ...]
) -> None:
    model = partly_trained(finetune_recipe, words)
    clip = torch.randn(1, 8, 3, 64, 64)
    with FlopCounterMode(display=False) as counter:  # which sees attention where probabilities are asked for
        model(clip, output_attentions=True).logits.sum().backward()
    parts = trained_parts(model)
    assert parts is not None
    assert parts.step_flops == counter.get_total_flops()
    cost = classification_clip_cost(model.config, parts)
    assert cost.step_flops == parts.step_flops < classification_clip_cost(model.config).step_flops


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("words", [one for one in WAYS.values() if one != WAYS["all blocks frozen"]])
def test_what_a_partly_frozen_step_keeps_is_what_the_walk_says(
    finetune_recipe: Finetune, words: tuple[str, ...], bf16: bool
) -> None:
    model = partly_trained(finetune_recipe, words)
    measured = kept_of_a_step(model, bf16=bf16)
    memory = predicted(model, bf16=bf16)
    assert memory.activations + memory.copies == pytest.approx(measured, rel=0.1 if bf16 else 0.04)


def test_without_a_trained_block_what_one_is_computed_from_and_to_is_the_memory(finetune_recipe: Finetune) -> None:
    model = partly_trained(finetune_recipe, WAYS["all blocks frozen"])
    assert kept_of_a_step(model, bf16=False) < 10_000
    at_work = (2 * 96 + 2 * 384) * native_grid(CONFIG).num_tokens * 4
    assert predicted(model, bf16=False).activations == CLIPS * at_work


def kept_of_a_step(model: VideoMAEForVideoClassification, *, bf16: bool) -> int:
    clips, labels = torch.randn(CLIPS, 8, 3, 64, 64), torch.zeros(CLIPS, dtype=torch.int64)
    return kept_bytes(model, lambda: model(clips, labels=labels), bf16=bf16)


def predicted(
    model: VideoMAEForVideoClassification, *, bf16: bool, config: VideoMAEConfig = CONFIG, clips: int = CLIPS
) -> StepMemory:
    return step_memory(
        config,
        clips=clips,
        visible=native_grid(config).num_tokens,
        decoded=0,
        bf16=bf16,
        num_parameters=sum(one.numel() for one in model.parameters()),
        num_matrix_values=sum(one.numel() for one in model.parameters() if one.ndim > 1),
        trained=trained_parts(model, bf16=bf16),
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--head.freeze", "3"), ("--head.freeze", "6"), ("--lora.rank", "4")])
def test_the_predicted_peak_is_what_a_cpu_allocates_in_a_step(
    finetune_recipe: Finetune, words: tuple[str, ...]
) -> None:
    config = CONFIG.replace(hidden_size=192, num_hidden_layers=6, intermediate_size=768, image_size=96)
    model = partly_trained(finetune_recipe, words, config)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
    clips, labels = torch.randn(4, 8, 3, 96, 96), torch.zeros(4, dtype=torch.int64)
    for measured in (False, True):  # the first step makes the optimizer's state
        with profile(activities=[ProfilerActivity.CPU], profile_memory=measured) as profiler:
            model(clips, labels=labels).loss.backward()
        if not measured:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    events = [one for one in profiler.profiler.kineto_results.events() if one.name() == "[memory]"]
    changes = [one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())]
    state = sum(value.nbytes for one in optimizer.state.values() for name, value in one.items() if name != "step")
    there = sum(one.nbytes for one in model.parameters()) + state + clips.nbytes + clips.numel()
    memory = predicted(model, bf16=False, config=config, clips=4)
    assert memory.peak == pytest.approx(there + max(itertools.accumulate(changes)), rel=0.1)


def test_gradients_and_moments_are_those_that_a_step_of_adapters_really_has(finetune_recipe: Finetune) -> None:
    model = partly_trained(finetune_recipe, ("--lora.rank", "4"))
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(torch.randn(1, 8, 3, 64, 64), labels=torch.zeros(1, dtype=torch.int64)).loss.backward()
    optimizer.step()
    memory = predicted(model, bf16=False)
    assert memory.gradients == sum(one.grad.nbytes for one in model.parameters() if one.grad is not None)
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert memory.optimizer == sum(one.nbytes for one in moments)
    assert memory.weights > 20 * memory.gradients


def test_a_model_all_of_which_is_trained_is_counted_in_closed_form() -> None:
    assert trained_parts(VideoMAEForVideoClassification(CONFIG)) is None


def test_a_dry_run_of_frozen_blocks_and_of_adapters_takes_less_than_one_of_all_weights(
    finetune_recipe: Finetune,
) -> None:
    pytest.importorskip("peft")
    plan = PlanConfig(num_videos=10)

    def told(*words: str) -> tuple[list[str], float]:
        lines = dry_run(finetune_recipe("--loop.precision", "fp32", *words), plan)
        operations = next(line for line in lines if line.startswith("operations: "))
        return lines, float(operations.split()[1])

    whole, half, adapted = told(), told("--head.freeze", "1"), told("--lora.rank", "2")
    assert half[1] < whole[1]
    assert adapted[1] < whole[1]
    assert any(line.startswith("trained: the lower 1 of 2 blocks are frozen; ") for line in half[0])
    assert any(line.startswith("trained: adapters of rank 2 on query, value; ") for line in adapted[0])
    assert not any(line.startswith("trained") for line in whole[0])
