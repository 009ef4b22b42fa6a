"""Conversions between layouts change no bit, whichever way round, and the golden numbers survive them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tiny_networks import tiny_network
from videomae.errors import ConfigError, WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.conversion import TARGETS, Conversion, Target, convert_weights
from videomae.sharing.record import load_record, save_record
from videomae.video.sampling import ClipConfig

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 2e-5
CASES: dict[str, type[VideoMAEPreTrainedModel]] = {
    "original_pretrain_tiny": VideoMAEForPreTraining,
    "v2_dual_masking_tiny": VideoMAEForPreTraining,
    "original_finetune_tiny_meanpool_layerscale": VideoMAEForVideoClassification,
    "original_finetune_tiny_firsttoken": VideoMAEForVideoClassification,
}
WITHOUT_LAYER_SCALE = [name for name in CASES if "layerscale" not in name]

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


def convert(source: Path, out: Path, **options: Any) -> Conversion:
    """Convert a VideoMAE checkpoint."""
    return convert_weights(source, out, config_class=VideoMAEConfig, **options)


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the tensors of a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        config = {"use_mean_pooling": False, **json.loads(file.metadata()["config"])}
        return config, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def weights_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a golden file by the authors' names."""
    return {name.removeprefix("weights."): one for name, one in tensors.items() if name.startswith("weights.")}


@pytest.fixture
def authors_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Path]:
    """Return a golden name, a `.pth` file as the authors' programs write it, and a `config.json` for it."""
    name: str = request.param
    config, tensors = golden(name)
    path = tmp_path / "theirs" / "checkpoint-799.pth"
    path.parent.mkdir()
    torch.save({"model": weights_of(tensors), "epoch": 799}, path)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return name, path, tmp_path / "config.json"


def read_original(path: Path) -> dict[str, Tensor]:
    """Return the state of an authors' file."""
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["model"]
    return state


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Assert that two states are equal in names, dtypes and every bit."""
    assert set(one) == set(other)
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name], other[name]), name


def assert_golden(name: str, source: Path) -> None:
    """Assert that a checkpoint gives the authors' logits, and loss where there is one."""
    _, tensors = golden(name)
    video = tensors["pixel_values_bcthw"].transpose(1, 2)
    masks = {key: tensors[key] for key in ("bool_masked_pos", "decode_masked_pos") if key in tensors}
    model, report = CASES[name].from_pretrained(source, output_loading_info=True)
    assert not report.fresh
    output = model(video, **masks)
    assert (output.logits - tensors["logits"]).abs().max().item() < TOLERANCE
    if masks:
        assert (output.loss - tensors["loss"][0]).abs().item() < 1e-6


@pytest.mark.parametrize("authors_file", CASES, indirect=True)
def test_the_authors_numbers_survive_both_directions(authors_file: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, path, config = authors_file
    folder, back = tmp_path / "ours", tmp_path / "back.pth"
    convert(path, folder, to="videomae", config=config)
    assert_golden(name, folder)
    convert(folder, back, to="original")
    assert_golden(name, back)
    assert_same(read_original(back), read_original(path))


@pytest.mark.parametrize("authors_file", WITHOUT_LAYER_SCALE, indirect=True)
def test_the_authors_numbers_survive_transformers_form(authors_file: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, path, config = authors_file
    done = convert(path, tmp_path / "theirs_now", to="transformers", config=config)
    assert_golden(name, tmp_path / "theirs_now")
    assert any("its outputs differ in about the sixth digit" in note for note in done.notes)
    convert(tmp_path / "theirs_now", tmp_path / "back.pth", to="original")
    assert_same(read_original(tmp_path / "back.pth"), read_original(path))


def save(cls: type[VideoMAEPreTrainedModel], folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Save a tiny model of random values; return its tensors as they are on the disk."""
    generator = torch.Generator().manual_seed(0)
    model = cls(tiny_network(num_labels=3, use_mean_pooling=cls is not VideoMAEForPreTraining))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.to(dtype).save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("first", TARGETS)
@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_a_round_trip_changes_no_bit(
    cls: type[VideoMAEPreTrainedModel], first: Target, dtype: torch.dtype, tmp_path: Path
) -> None:
    state = save(cls, tmp_path / "a", dtype)
    between = tmp_path / ("b.pth" if first == "original" else "b")
    done = convert(tmp_path / "a", between, to=first)
    assert done.out == between
    convert(between, tmp_path / "c", to="videomae")
    again = load_file(tmp_path / "c" / "model.safetensors")
    if cls is VideoMAEModel:  # written with whole-network names, which both libraries read
        state = {f"videomae.{name}": one for name, one in state.items()}
    assert_same(again, state)
    one, other = cls.from_pretrained(tmp_path / "a"), cls.from_pretrained(tmp_path / "c")
    assert one.config == other.config
    assert_same(dict(one.state_dict()), dict(other.state_dict()))


def test_the_processor_and_the_record_go_where_they_belong(tmp_path: Path) -> None:
    save(VideoMAEForVideoClassification, tmp_path / "a")
    odd = VideoMAEImageProcessor(size=40, crop_size=32, image_mean=[0.1, 0.2, 0.3], image_std=[1.0, 1.0, 1.0])
    odd.save_pretrained(tmp_path / "a")
    save_record(tmp_path / "a", {"clip": {"num_frames": 4, "stride": 3, "kind": "dense"}})
    convert(tmp_path / "a", tmp_path / "b", to="videomae")
    convert(tmp_path / "a", tmp_path / "c", to="transformers")
    for name in ("b", "c"):
        assert list(VideoMAEImageProcessor.from_pretrained(tmp_path / name).image_mean) == [0.1, 0.2, 0.3]
    record = load_record(tmp_path / "b")
    assert record.sampling == ClipConfig(num_frames=4, stride=3)
    assert record.extra["converted"] == {"source": str(tmp_path / "a"), "layout": "transformers"}
    assert not (tmp_path / "c" / "videomae.json").exists()


def test_transformers_gets_no_field_that_it_does_not_know(tmp_path: Path) -> None:
    import transformers

    save(VideoMAEForVideoClassification, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", to="transformers")
    values = json.loads((tmp_path / "b" / "config.json").read_text(encoding="utf-8"))
    known = set(transformers.VideoMAEConfig().to_dict()) | {"qkv_bias", "torch_dtype"}
    assert set(values) <= known
    _, info = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("authors_file", ["original_finetune_tiny_meanpool_layerscale"], indirect=True)
def test_what_a_target_has_no_place_for_is_refused(authors_file: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, path, config = authors_file
    with pytest.raises(WeightsError, match="transformers' VideoMAE has no layer scale, which this model has"):
        convert(path, tmp_path / "b", to="transformers", config=config)
    assert not (tmp_path / "b").exists()


def test_a_file_that_does_not_fit_is_not_converted(tmp_path: Path) -> None:
    state = save(VideoMAEForVideoClassification, tmp_path / "a")
    del state["classifier.bias"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"it lacks classifier\.bias"):
        convert(tmp_path / "x.pth", tmp_path / "b", config=tmp_path / "a")
    assert not (tmp_path / "b").exists()


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    save(VideoMAEModel, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b")
    convert(tmp_path / "a", tmp_path / "c.pth", to="original")
    with pytest.raises(ConfigError, match="b holds a model already: give --overwrite, or another place"):
        convert(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ConfigError, match=r"c\.pth holds a model already"):
        convert(tmp_path / "a", tmp_path / "c.pth", to="original")
    convert(tmp_path / "a", tmp_path / "b", overwrite=True)
    convert(tmp_path / "a", tmp_path / "c.pth", to="original", overwrite=True)
    with pytest.raises(ConfigError, match=r"is a folder: give the \.pth file to write"):
        convert(tmp_path / "a", tmp_path / "b", to="original")
    with pytest.raises(ConfigError, match=r"c\.pth is a file: give a folder"):
        convert(tmp_path / "a", tmp_path / "c.pth", to="videomae")
    with pytest.raises(ConfigError, match="to is 'onnx': choose one of videomae, transformers, original"):
        convert(tmp_path / "a", tmp_path / "d", to="onnx")  # type: ignore[arg-type]


def test_an_original_file_holds_no_more_than_its_tensors(tmp_path: Path) -> None:
    state = save(VideoMAEForPreTraining, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b.pth", to="original")
    size = sum(one.numel() * one.element_size() for one in state.values())
    assert (tmp_path / "b.pth").stat().st_size < size + 40_000, "a mapped tensor took its whole file along"
