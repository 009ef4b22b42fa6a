"""Every released checkpoint of VideoMAE and VideoMAE V2: a file with its names and shapes loads, all accounted for.

The names and shapes are the authors'; the values are random, and zero in the large ones, whose files have holes in
place of values so that nothing of their size is ever written or held.
"""

from __future__ import annotations

import argparse
import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiny_models import from_original
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.presets import PRESETS
from videomae.weights.loading import open_checkpoint, plan_load
from videomae.weights.options import LoadOptions
from videomae.weights.report import LoadReport

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASED: dict[str, dict[str, list[int]]] = {
    name: shapes
    for file in ("original_checkpoint_keys.json", "v2_checkpoint_keys.json")
    for name, shapes in json.loads((GOLDEN / file).read_text(encoding="utf-8")).items()
}
SMALL = [name for name in RELEASED if "-small-" in name]
PARAMETERS = {  # counted by hand from the published sizes
    "finetune-small-400": 22_033_936,
    "finetune-base-400": 86_534_800,
    "finetune-large-400": 304_270_736,
    "finetune-huge-400": 632_119_440,
    "pretrain-small-decoder4": 24_029_376,
    "pretrain-base-decoder4": 94_210_944,
    "pretrain-large-decoder12": 342_996_992,
    "pretrain-huge-decoder12": 692_487_296,
    "v2-pretrain-giant-decoder4": 1_026_306_560,
}


def model_class(name: str) -> type[nn.Module]:
    """Return the class of a released checkpoint by its name."""
    return VideoMAEForPreTraining if "pretrain" in name else VideoMAEForVideoClassification


def write_with_holes(path: Path, shapes: dict[str, list[int]]) -> None:
    """Write a safetensors file whose values take no space on the disk, in half precision: mapping costs by size."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)


def assert_all_used(report: LoadReport, shapes: dict[str, list[int]], own: set[str]) -> None:
    """Assert that every tensor of the file is in the model and every one of the model from the file."""
    assert {one.tensor for one in report.statuses} == set(shapes)
    assert {one.status for one in report.statuses} <= {"loaded", "renamed", "split"}
    assert set(report.loaded) == own
    assert not report.fresh
    assert not report.unused


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a model's tests: those from 300 million parameters on are slow."""
    return [pytest.mark.slow] if any(size in name for size in ("large", "huge", "giant")) else []


RELEASED_NAMES = [pytest.param(name, "", marks=marks(name)) for name in RELEASED]
WRAPPED = [pytest.param(name, wrapper) for name in SMALL for wrapper in ("module.", "_orig_mod.", "model.")]


@pytest.mark.parametrize(("name", "wrapper"), RELEASED_NAMES + WRAPPED)
def test_every_tensor_of_a_released_checkpoint_is_accounted_for(name: str, wrapper: str, tmp_path: Path) -> None:
    shapes = {wrapper + key: shape for key, shape in RELEASED[name].items()}
    path = tmp_path / "x.safetensors"
    write_with_holes(path, shapes)
    checkpoint = open_checkpoint(path, VideoMAEConfig)
    plan = plan_load(model_class(name), checkpoint, LoadOptions(), {})
    assert_all_used(plan.report, shapes, set(plan.model.state_dict()))
    preset = PRESETS[next(size for size in PRESETS if f"-{size}-" in name)]
    decoder = "pretrain" in name
    for field, value in preset.items():
        if decoder or not field.startswith("decoder_"):
            assert getattr(plan.config, field) == value, field
    assert plan.config.patch_size == (14 if "giant" in name else 16)
    assert plan.config.layer_norm_eps == 1e-6
    assert plan.config.head_norm_eps == 1e-6
    if name in PARAMETERS:
        assert sum(one.numel() for one in plan.model.state_dict().values()) == PARAMETERS[name]
    assert path.stat().st_blocks * 512 < 2**20, "the file was to have holes"


@pytest.mark.parametrize(
    "name",
    [
        "pretrain-base-decoder4",
        "finetune-small-400",
        pytest.param("v2-finetune-giant-710", marks=marks("v2-finetune-giant-710")),
    ],
)
def test_the_encoder_of_a_released_checkpoint_is_found_by_itself(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_with_holes(path, RELEASED[name])
    plan = plan_load(VideoMAEModel, open_checkpoint(path, VideoMAEConfig), LoadOptions(), {})
    assert set(plan.report.loaded) == set(plan.model.state_dict())
    assert not plan.report.fresh
    num_cut = 2 * sum(".qkv.weight" in key for key in RELEASED[name])  # each is three tensors here
    assert len(plan.report.loaded) + len(plan.report.unused) == len(RELEASED[name]) + num_cut


@pytest.mark.parametrize("container", ["model", "module", None])
@pytest.mark.parametrize("name", SMALL)
def test_the_small_checkpoints_load_value_for_value_from_the_authors_files(
    name: str, container: str | None, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(shape, generator=generator).half() for key, shape in RELEASED[name].items()}
    content: dict[str, Any] = dict(state)
    if container:
        args = argparse.Namespace(lr=1.5e-4, model=name, clip_grad=np.float64(0.02))
        content = {container: state, "epoch": 799, "scaler": {"scale": 65536.0}, "args": args}
    torch.save(content, tmp_path / "checkpoint-799.pth")
    model, report = model_class(name).from_pretrained(
        tmp_path / "checkpoint-799.pth", output_loading_info=True, dtype="auto"
    )
    assert_all_used(report, RELEASED[name], set(model.state_dict()))
    expected: dict[str, Tensor] = from_original(state)
    assert all(torch.equal(one, expected[key]) for key, one in model.state_dict().items())


def test_all_released_checkpoints_are_met() -> None:
    assert len(RELEASED) == 15
    assert len(SMALL) == 3
    assert set(PARAMETERS) < set(RELEASED)
