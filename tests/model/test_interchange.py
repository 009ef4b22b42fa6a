"""transformers reads the folders this package writes, and the reverse: same outputs, every bias included.

The biases are what transformers 5.0 to about 5.16 lost without a word; a test zeroes them to show that the
comparison here would have noticed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_parity import THEIRS, make_theirs

from tiny_models import ALL_CLASSES, inputs_for, make_model
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining

TOLERANCE = 1e-5
SHARD = "20KB"  # of some 100 KB

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False", "ignore::FutureWarning")


def difference(ours: Any, theirs: Any) -> float:
    """Return the largest difference of any output of two models in eval mode on the same inputs."""
    inputs = inputs_for(ours)
    with torch.no_grad():
        mine, other = ours.eval()(**inputs), theirs.eval()(**inputs)
    assert list(mine) == list(other)
    return max((mine[name] - other[name]).abs().max().item() for name in mine.keys())  # noqa: SIM118


def load_theirs(cls: type[VideoMAEPreTrainedModel], folder: Path) -> Any:
    """Load a folder with transformers and assert that it found everything and nothing else."""
    model, info = THEIRS[cls].from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model


def mean_pooling(cls: type[VideoMAEPreTrainedModel]) -> bool:
    """Return whether the published models of a class average tokens."""
    return cls is not VideoMAEForPreTraining


@pytest.mark.parametrize("shard_size", ["5GB", SHARD])
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_transformers_reads_what_we_save(cls: type[VideoMAEPreTrainedModel], shard_size: str, tmp_path: Path) -> None:
    ours = make_model(cls)
    ours.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == SHARD)
    assert difference(ours, load_theirs(cls, tmp_path)) < TOLERANCE


@pytest.mark.parametrize("shard_size", ["5GB", SHARD])
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_we_read_what_transformers_saves(cls: type[VideoMAEPreTrainedModel], shard_size: str, tmp_path: Path) -> None:
    theirs = make_theirs(cls, {"use_mean_pooling": mean_pooling(cls)})
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == SHARD)
    ours, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not report.fresh
    assert not report.unused
    assert difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_the_comparison_would_notice_lost_biases(cls: type[VideoMAEPreTrainedModel], tmp_path: Path) -> None:
    ours = make_model(cls)
    ours.save_pretrained(tmp_path)
    theirs = load_theirs(cls, tmp_path)
    names = [name for name, _ in theirs.named_parameters() if re.search(r"(query|value)\.bias$", name)]
    assert len(names) == 2 * sum(
        re.search(r"query\.weight$", name) is not None for name, _ in theirs.named_parameters()
    )
    for name in names:  # one at a time: none of them may be lost
        parameter = theirs.get_parameter(name)
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.zero_()
        assert difference(ours, theirs) > 10 * TOLERANCE, name
        with torch.no_grad():
            parameter.copy_(kept)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_round_trip_through_transformers_changes_no_bit(cls: type[VideoMAEPreTrainedModel], tmp_path: Path) -> None:
    ours = make_model(cls)
    ours.save_pretrained(tmp_path / "a")
    load_theirs(cls, tmp_path / "a").save_pretrained(tmp_path / "b")
    again = cls.from_pretrained(tmp_path / "b")
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in ours.state_dict().items())


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_the_names_on_disk_are_those_of_transformers_four(cls: type[VideoMAEPreTrainedModel], tmp_path: Path) -> None:
    ours = make_model(cls)
    ours.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    inside = {name.split("attention.attention.")[1] for name in names if "attention.attention." in name}
    assert inside == {"query.weight", "key.weight", "value.weight", "q_bias", "v_bias"}
    # Version 5 has the same names but for the biases, which it renames when it reads and when it writes.
    five = {
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias")
        for name in make_theirs(cls, {"use_mean_pooling": mean_pooling(cls)}).state_dict()
    }
    assert names == five


def test_the_configuration_has_both_spellings_of_what_was_renamed(tmp_path: Path) -> None:
    make_model(VideoMAEForVideoClassification, qv_bias=False).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert values["qkv_bias"] is False
    assert values["qv_bias"] is False
    assert values["dtype"] == values["torch_dtype"] == "float32"
    assert values["architectures"] == ["VideoMAEForVideoClassification"]
    assert values["model_type"] == "videomae"


def test_shards_are_complete_and_small_and_replace_what_was_there(tmp_path: Path) -> None:
    model = make_model(VideoMAEForPreTraining)
    model.save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    model.save_pretrained(tmp_path, max_shard_size=SHARD)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    parts = {name: load_file(tmp_path / name) for name in files}
    assert {key: name for name, part in parts.items() for key in part} == index["weight_map"]
    assert all(torch.equal(part[key], whole[key]) for part in parts.values() for key in part)
    assert set(index["weight_map"]) == set(whole)
    sizes = [sum(one.numel() * 4 for one in part.values()) for part in parts.values()]
    assert index["metadata"]["total_size"] == sum(sizes) == sum(one.numel() * 4 for one in whole.values())
    assert max(sizes) <= 20_000
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
