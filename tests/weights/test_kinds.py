"""A new head is one row of the table of kinds and one class: it is saved, loaded, inspected and described."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import videomae
from tiny_models import make_model, random_video
from videomae.errors import WeightsError
from videomae.inference.loaded import load_trained, source_kind
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.sharing.conversion import convert_weights
from videomae.sharing.inspection import inspect_weights, inspection_table
from videomae.sharing.publishing import write_card
from videomae.weights.kinds import ENCODER_PREFIX, KINDS, ModelKind, kind_of_class


class VideoMAEForSpeed(VideoMAEPreTrainedModel):
    """A head for this file: how fast things move in a clip, one number."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(config)
        self.speedometer = nn.Linear(config.hidden_size, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return speeds `[B]` of clips `[B, T, C, H, W]`."""
        speeds: Tensor = self.speedometer(self.videomae(pixel_values).last_hidden_state.mean(1))[:, 0]
        return speeds


SPEED = ModelKind(
    name="speed",
    class_name="VideoMAEForSpeed",
    module=__name__,
    base_prefix=ENCODER_PREFIX,
    parts=("speedometer.",),
    head="speedometer",
    holds="a speedometer",
    hint="train one first",
    summary="A VideoMAE model that tells speeds",
    task="",
)


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the row, as a new head does in `weights/kinds.py`."""
    # First, as any head's row may stand before the bare encoder's.
    rows = {"speed": SPEED, **KINDS}
    for name in list(KINDS):
        monkeypatch.delitem(KINDS, name)
    for name, kind in rows.items():
        monkeypatch.setitem(KINDS, name, kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a saved model with the new head."""
    make_model(VideoMAEForSpeed).save_pretrained(tmp_path / "speed")
    return tmp_path / "speed"


def test_the_table_names_classes_that_are_there() -> None:
    for kind in KINDS.values():
        cls = VideoMAEPreTrainedModel.class_of(kind)
        assert (cls.__name__, cls.__module__) == (kind.class_name, kind.module)
        assert kind_of_class(cls) is kind
        names = make_model(cls).state_dict()
        assert any(name.startswith(kind.base_prefix + "embeddings.") for name in names)
        heads = {name for name in names if kind.parts and name.startswith(kind.parts)}
        assert bool(heads) == bool(kind.parts) == bool(kind.head)


def test_a_new_head_is_a_public_name() -> None:
    assert videomae.VideoMAEForSpeed is VideoMAEForSpeed
    assert "VideoMAEForSpeed" in dir(videomae)
    del vars(videomae)["VideoMAEForSpeed"]  # kept there after its first use


def test_a_new_head_is_saved_and_loaded(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded, report = VideoMAEForSpeed.from_pretrained(folder, output_loading_info=True)
    assert not report.fresh
    assert not report.unused
    video = random_video(loaded.config)
    assert torch.equal(loaded(video), make_model(VideoMAEForSpeed).eval()(video))
    assert source_kind(folder) == "speed"
    assert isinstance(load_trained(VideoMAEForSpeed, folder, device="cpu").model, VideoMAEForSpeed)


def test_a_new_head_starts_from_a_pretrained_encoder(tmp_path: Path) -> None:
    source = make_model(VideoMAEForPreTraining)
    source.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"speedometer.weight, .* are randomly initialized \(the file holds no"):
        loaded, report = VideoMAEForSpeed.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report.fresh) == {"speedometer.weight", "speedometer.bias"}
    weights = loaded.videomae.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in source.videomae.state_dict().items())
    with pytest.raises(WeightsError, match="holds an encoder and its decoder, without a speedometer: train one"):
        load_trained(VideoMAEForSpeed, tmp_path, device="cpu")


def test_the_encoder_under_a_new_head_serves_other_models(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"ignored: speedometer.bias, speedometer.weight \(the model has no speedo"):
        VideoMAEModel.from_pretrained(folder)
    with pytest.warns(UserWarning, match=r"classifier.weight, .* are randomly initialized"):
        VideoMAEForVideoClassification.from_pretrained(folder)


def test_a_new_head_is_inspected_described_and_converted(folder: Path, tmp_path: Path) -> None:
    found = inspect_weights(folder, VideoMAEPreTrainedModel)
    assert found.kind == "speed"
    assert found.usable
    assert shown(inspection_table(found)).count("a speedometer") == 1
    write_card(folder, "ann/speed", config_class=VideoMAEConfig)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "A VideoMAE model that tells speeds: 24 wide, 3 deep" in text
    assert "from videomae import VideoMAEForSpeed, VideoMAEImageProcessor" in text
    convert_weights(folder, tmp_path / "x.pth", config_class=VideoMAEConfig, to="original")
    again = VideoMAEForSpeed.from_pretrained(tmp_path / "x.pth")
    assert torch.equal(again.speedometer.weight, make_model(VideoMAEForSpeed).speedometer.weight)


def shown(table: Any) -> str:
    """Return a table as it is printed."""
    from rich.console import Console

    console = Console(width=200, file=sys.stderr)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
