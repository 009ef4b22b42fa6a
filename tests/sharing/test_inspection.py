"""`weights inspect`: what is in a checkpoint, and a verdict on everything that its user should know."""

from __future__ import annotations

import io
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from tiny_networks import tiny_network
from videomae.errors import WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.inspection import Inspection, inspect_weights, inspection_table
from videomae.sharing.record import ModelRecord
from videomae.video.sampling import ClipConfig
from videomae.weights.layouts import to_original

GOLDEN = Path(__file__).parents[1] / "golden"

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a classifier that nothing is wrong with."""
    model = VideoMAEForVideoClassification(tiny_network(num_labels=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    model.save_pretrained(tmp_path / "model", record=ModelRecord(sampling=ClipConfig(num_frames=4, stride=3)))
    return tmp_path / "model"


def inspect(source: Path, **options: Any) -> Inspection:
    """Inspect a VideoMAE checkpoint."""
    return inspect_weights(source, VideoMAEPreTrainedModel, **options)


def edit(folder: Path, **changes: Any) -> None:
    """Change entries of `config.json`; None removes one."""
    path = folder / "config.json"
    values = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({name: one for name, one in values.items() if one is not None}), encoding="utf-8")


def strip_own_fields(folder: Path) -> None:
    """Leave in `config.json` what transformers writes."""
    names = ("drop_path_rate", "classifier_dropout", "init_values", "use_cls_token", "head_layer_norm_eps")
    edit(folder, **dict.fromkeys(names))


def verdicts(inspection: Inspection) -> list[tuple[str, str]]:
    """Return verdict and text of every problem."""
    return [(problem.verdict, problem.what) for problem in inspection.problems]


def shown(inspection: Inspection) -> str:
    """Return the table as it is printed."""
    stream = io.StringIO()
    Console(file=stream, width=200).print(inspection_table(inspection))
    return stream.getvalue()


def test_a_sound_folder_has_no_problems(folder: Path) -> None:
    found = inspect(folder)
    assert found.usable
    assert not found.problems
    assert found.layout == "transformers"
    assert found.kind == "classification"
    assert found.architecture == "16 wide, 2 deep, 2 heads, patch 8"
    assert found.num_parameters == VideoMAEForVideoClassification(tiny_network(num_labels=3)).num_parameters()
    assert found.dtypes == ("float32",)
    assert found.num_labels == 3
    assert found.sampling == "4 frames, stride 3, dense"
    assert found.files == ("model.safetensors",)
    assert found.size_bytes == (folder / "model.safetensors").stat().st_size
    assert found.report is not None
    assert set(found.report.counts()) == {"loaded", "renamed"}
    text = shown(found)
    for fact in ("a classifier", "16 wide, 2 deep", "float32", "4 frames, stride 3", "no problems found"):
        assert fact in text


def test_a_bare_file_tells_what_was_assumed(tmp_path: Path) -> None:
    model = VideoMAEForPreTraining(tiny_network(use_mean_pooling=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    torch.save(
        {"model": {f"module.{name}": one for name, one in to_original(model.state_dict()).items()}},
        tmp_path / "x.pth",
    )
    tiny_network(use_mean_pooling=False).to_json_file(tmp_path / "config.json")
    found = inspect(tmp_path / "x.pth")
    assert not found.usable
    assert found.architecture == ""
    unusable = [what for verdict, what in verdicts(found) if verdict == "unusable"]
    assert len(unusable) == 1
    assert unusable[0].endswith("give num_attention_heads=")
    found = inspect(tmp_path / "x.pth", config=tmp_path / "config.json")
    assert found.usable
    assert found.layout == "original pre-training, under model, names wrapped in module."
    assert found.num_labels is None
    assert {verdict for verdict, _ in verdicts(found)} == {"assumed"}
    assert "at stride 4 are assumed" in shown(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain-huge-decoder12", "v2-finetune-giant-710"])
def test_a_giant_is_looked_at_without_being_read(name: str, tmp_path: Path) -> None:
    shapes = {}
    for file in ("original_checkpoint_keys.json", "v2_checkpoint_keys.json"):
        shapes.update(json.loads((GOLDEN / file).read_text(encoding="utf-8")))
    header: dict[str, Any] = {}
    end = 0
    for key, shape in shapes[name].items():
        start, end = end, end + 4 * prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "x.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    found = inspect(tmp_path / "x.safetensors", check_values=False)
    assert found.usable
    expected = {"pretrain-huge-decoder12": "huge (1280 wide, 32 deep, 16 heads, patch 16)"}
    assert found.architecture == expected.get(name, "giant (1408 wide, 40 deep, 16 heads, patch 14)")
    assert found.num_parameters * 4 == end
    assert found.num_labels == (710 if "710" in name else None)


def test_repairs_are_told_with_their_verdict(folder: Path) -> None:
    strip_own_fields(folder)
    edit(folder, qkv_bias=None, qv_bias=False, fps=25)
    found = verdicts(inspect(folder))
    assert [verdict for verdict, what in found if "the file has them: they are used" in what] == ["repaired"]
    assert [verdict for verdict, what in found if "entries that mean nothing here: fps" in what] == ["kept"]


def test_a_classifier_of_one_token_is_told(tmp_path: Path) -> None:
    VideoMAEForVideoClassification(tiny_network(use_mean_pooling=False)).save_pretrained(tmp_path)
    found = verdicts(inspect(tmp_path))
    assert [verdict for verdict, what in found if "the classifier sees token 0 alone" in what] == ["kept"]


def test_biases_that_are_all_zero_are_told(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    zeroed = {name: one * 0 if name.endswith(("q_bias", "v_bias")) else one for name, one in state.items()}
    save_file(zeroed, folder / "model.safetensors")
    [(verdict, what)] = verdicts(inspect(folder))
    assert verdict == "look into it"
    assert what.startswith("every bias of queries and values is zero, as in an untrained model, or in one that tr")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_found(folder: Path, value: float) -> None:
    state = load_file(folder / "model.safetensors")
    state["videomae.encoder.layer.1.output.dense.weight"][3, 4] = value
    save_file(state, folder / "model.safetensors")
    found = inspect(folder)
    assert verdicts(found) == [
        ("unusable", "values that are no finite numbers in videomae.encoder.layer.1.output.dense.weight")
    ]
    assert not found.usable
    assert not inspect(folder, check_values=False).problems


def test_another_normalisation_is_told(folder: Path) -> None:
    VideoMAEImageProcessor(size=32, crop_size=32).save_pretrained(folder)
    [(verdict, what)] = verdicts(inspect(folder))
    assert verdict == "look into it"
    assert "has image_mean [0.5, 0.5, 0.5]; the published models were trained with ImageNet's" in what


def test_a_damaged_record_is_told(folder: Path) -> None:
    (folder / "videomae.json").write_text('{"clip": {"stride": 3}}', encoding="utf-8")
    [(verdict, what)] = verdicts(inspect(folder))
    assert verdict == "look into it"
    assert what.startswith(f"{folder / 'videomae.json'}: the clip entry is")


def test_what_does_not_fit_is_still_looked_at(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["ema.decay"] = torch.ones(1)
    save_file(state, folder / "model.safetensors")
    found = inspect(folder)
    assert not found.usable
    assert found.num_parameters > 1000
    assert any("it also has ema.decay" in what for _, what in verdicts(found))
    assert "not known" in shown(found)


def test_a_file_cannot_colour_the_table(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["[bold red]x[/]"] = torch.ones(1)
    save_file(state, folder / "model.safetensors")
    assert "[bold red]x[/]" in shown(inspect(folder))


def test_what_cannot_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is no folder: give the folder of a saved model"):
        inspect(tmp_path / "nowhere")
    (tmp_path / "x.pth").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="is no weights file"):
        inspect(tmp_path / "x.pth")
