from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kept_bytes import kept_bytes
from torch import nn

from videomae.masking import MaskConfig, draw_masks
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.train.memory import StepMemory, step_memory

CONFIG = VideoMAEConfig(
    image_size=64,
    num_frames=8,
    hidden_size=96,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=384,
    decoder_hidden_size=48,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=3,
    decoder_intermediate_size=192,
    use_mean_pooling=True,
)
CLIPS = 3
# In bf16 a CPU keeps attention's scores where they are small, which is not counted.
TOLERANCE = {False: 0.04, True: 0.1}


def predicted(model: nn.Module, *, visible: int, decoded: int, bf16: bool) -> StepMemory:
    return step_memory(
        CONFIG,
        clips=CLIPS,
        visible=visible,
        decoded=decoded,
        bf16=bf16,
        num_parameters=sum(one.numel() for one in model.parameters()),
        num_matrix_values=sum(one.numel() for one in model.parameters() if one.ndim > 1),
    )


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("decoder_kind", ["all", "running_cell"])
def test_what_pretraining_keeps_is_what_the_formula_says(bf16: bool, decoder_kind: str) -> None:
    torch.manual_seed(0)
    model = VideoMAEForPreTraining(CONFIG).train()
    mask = MaskConfig(ratio=0.75, decoder_kind=decoder_kind)  # type: ignore[arg-type]
    masks = draw_masks(mask, native_grid(CONFIG), batch=CLIPS, generator=torch.Generator().manual_seed(0))
    clips = torch.randn(CLIPS, 8, 3, 64, 64)
    measured = kept_bytes(
        model, lambda: model(clips, visible_indices=masks.visible, decoded_indices=masks.decoded).loss, bf16=bf16
    )
    memory = predicted(model, visible=masks.visible.shape[1], decoded=masks.decoded.shape[1], bf16=bf16)
    assert memory.activations + memory.copies == pytest.approx(measured, rel=TOLERANCE[bf16])


@pytest.mark.parametrize("bf16", [False, True])
def test_what_fine_tuning_keeps_is_what_the_formula_says(bf16: bool) -> None:
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(CONFIG).train()
    clips, labels = torch.randn(CLIPS, 8, 3, 64, 64), torch.zeros(CLIPS, dtype=torch.int64)
    measured = kept_bytes(model, lambda: model(clips, labels=labels).loss, bf16=bf16)
    memory = predicted(model, visible=native_grid(CONFIG).num_tokens, decoded=0, bf16=bf16)
    assert memory.activations + memory.copies == pytest.approx(measured, rel=TOLERANCE[bf16])


def test_activations_grow_with_the_clips_and_nothing_else_does() -> None:
    model = VideoMAEForPreTraining(CONFIG)
    one = predicted(model, visible=16, decoded=48, bf16=True)
    sizes = {"num_parameters": 10**6, "num_matrix_values": 10**6}
    few, many = (step_memory(CONFIG, clips=count, visible=16, decoded=48, bf16=True, **sizes) for count in (1, 10))
    assert many.activations == 10 * few.activations
    assert (many.weights, many.optimizer, many.gradients) == (few.weights, few.optimizer, few.gradients)
    assert one.peak > one.weights + one.optimizer + one.activations


def test_with_few_clips_the_gradients_are_the_peak() -> None:
    sizes = {"num_parameters": 10**9, "num_matrix_values": 10**9}
    memory = step_memory(CONFIG, clips=1, visible=16, decoded=48, bf16=False, **sizes)
    assert memory.peak == memory.weights + memory.optimizer + memory.gradients + memory.clips
    assert memory.peak == pytest.approx(16e9, rel=0.01)
    assert memory.line().startswith("memory of a step: 14.9")


MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "2026-11-27-cuda-h200-memory.json"


@pytest.mark.parametrize("row", json.loads(MEASURED.read_text(encoding="utf-8"))["rows"])
def test_the_peak_is_within_five_percent_of_what_a_gpu_took(row: dict[str, Any]) -> None:
    pretraining = row["kind"] == "pre"
    config = VideoMAEConfig.preset(row["size"], use_mean_pooling=not pretraining, num_labels=400)
    with torch.device("meta"):
        model = (VideoMAEForPreTraining if pretraining else VideoMAEForVideoClassification)(config)
    memory = step_memory(
        config,
        clips=row["clips"],
        visible=160 if pretraining else 1568,
        decoded=1408 if pretraining else 0,
        bf16=row["dtype"] == "torch.bfloat16",
        cuda=True,
        num_parameters=sum(one.numel() for one in model.parameters()),
        num_matrix_values=sum(one.numel() for one in model.parameters() if one.ndim > 1),
    )
    assert memory.peak == pytest.approx(row["measured"], rel=0.05)
