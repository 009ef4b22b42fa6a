"""Model folders: what is saved is what is loaded, no write is half done, and every misfit is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiny_models import (
    ALL_CLASSES,
    NUM_HIDDEN,
    inputs_for,
    make_model,
    random_mask,
    random_video,
    scalar,
)
from videomae.errors import ConfigError, WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.sharing.record import ModelRecord, load_record, save_record
from videomae.weights.json_files import write_json
from videomae.weights.report import LoadReport

pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")
FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a saved classifier."""
    path = tmp_path / "model"
    make_model(VideoMAEForVideoClassification).save_pretrained(path)
    return path


def edit_weights(folder: Path, **changes: Tensor | None) -> None:
    """Replace, add or (None) remove tensors of a saved model; `__` in a name stands for a dot."""
    state = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    "settings", [{}, {"use_cls_token": True, "init_values": 0.1}, {"qv_bias": False, "image_size": (16, 16)}], ids=str
)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_saved_model_comes_back_equal(
    cls: type[VideoMAEPreTrainedModel], settings: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(cls, **settings).eval()
    model.save_pretrained(tmp_path / "deep" / "folder")
    loaded = cls.from_pretrained(str(tmp_path / "deep" / "folder"))
    assert {path.name for path in (tmp_path / "deep" / "folder").iterdir()} == FILES
    assert loaded.config == model.config
    assert not loaded.training
    assert set(loaded.state_dict()) == set(model.state_dict())
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in model.state_dict().items())
    inputs = inputs_for(model)
    assert torch.equal(scalar(loaded(**inputs)), scalar(model(**inputs)))


def test_a_bfloat16_model_is_saved_as_such_and_read_into_float32(tmp_path: Path) -> None:
    model = make_model(VideoMAEModel).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert {one.dtype for one in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    loaded = VideoMAEModel.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    assert all(torch.equal(one, model.state_dict()[name].float()) for name, one in loaded.state_dict().items())


def test_fields_can_be_changed_while_loading(folder: Path) -> None:
    loaded = VideoMAEForVideoClassification.from_pretrained(folder, drop_path_rate=0.3, classifier_dropout=0.5)
    assert loaded.videomae.encoder.layer[-1].drop_path.rate == pytest.approx(0.3)
    assert loaded.config.classifier_dropout == 0.5


def test_a_bare_encoder_is_read_out_of_a_whole_model(tmp_path: Path) -> None:
    whole = make_model(VideoMAEForPreTraining).eval()
    whole.save_pretrained(tmp_path)
    bare = VideoMAEModel.from_pretrained(tmp_path)
    video, mask = random_video(whole.config), random_mask(num_hidden=NUM_HIDDEN)
    assert torch.equal(bare(video, mask).last_hidden_state, whole.videomae(video, mask).last_hidden_state)


# Writing.


def test_the_arguments_of_other_programs_are_taken(tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification)
    doubled = {name: 2 * one for name, one in model.state_dict().items()}
    model.save_pretrained(tmp_path / "no", is_main_process=False)
    assert not (tmp_path / "no").exists()
    # As accelerate's examples call it, and as transformers 4 was called.
    model.save_pretrained(tmp_path / "yes", is_main_process=True, save_function=torch.save, state_dict=doubled)
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path / "yes").state_dict()
    assert all(torch.equal(one, doubled[name]) for name, one in loaded.items())
    model.save_pretrained(tmp_path / "yes", safe_serialization=True)
    assert {path.name for path in (tmp_path / "yes").iterdir()} == FILES
    with pytest.raises(ConfigError, match="unknown option 'safe_serialisation' of save_pretrained"):
        model.save_pretrained(tmp_path / "no", safe_serialisation=True)


LIMITED_SAVE = """
import resource, sys
from pathlib import Path
import torch
from videomae.errors import WeightsError
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.sharing.record import save_record
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
model = VideoMAEForVideoClassification.from_pretrained(folder, drop_path_rate=0.7)
torch.nn.init.ones_(model.classifier.weight)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # the system refuses to write more, as a full disk does
try:
    save_record(folder, {"steps": 1}) if limit < 10 else model.save_pretrained(folder)
except WeightsError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits on the size of a file are a POSIX matter")
@pytest.mark.parametrize(("limit", "name"), [(1, "videomae.json"), (4096, "model.safetensors")])
def test_a_full_disk_leaves_the_old_files_and_nothing_else(folder: Path, limit: int, name: str) -> None:
    save_record(folder, {"steps": 0})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before[name]) > limit
    command = [sys.executable, "-c", LIMITED_SAVE, str(folder), str(limit)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"cannot write {folder / name}: "), result.stdout
    assert result.stdout.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"cannot write .*file.model.model\.safetensors: "):
        make_model(VideoMAEModel).save_pretrained(tmp_path / "file" / "model")
    with pytest.raises(WeightsError, match=r"cannot write .*file.config\.json: "):
        write_json(tmp_path / "file" / "config.json", {})


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX matter")
def test_new_files_have_the_permissions_of_the_umask(folder: Path) -> None:
    plain = folder / "plain"
    plain.touch()
    assert {(folder / name).stat().st_mode for name in FILES} == {plain.stat().st_mode}


def test_saving_again_replaces_every_file(folder: Path) -> None:
    other = make_model(VideoMAEForVideoClassification, num_labels=3)
    other.save_pretrained(folder)
    assert VideoMAEForVideoClassification.from_pretrained(folder).num_labels == 3


# Refusals. Each message names the file or tensor and says what to do.


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere is no folder: give the folder of a saved model"):
        VideoMAEModel.from_pretrained(tmp_path / "nowhere")


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model has no model.safetensors: give the folder of a saved model"):
        VideoMAEForVideoClassification.from_pretrained(folder)


def test_without_a_configuration_what_shapes_cannot_tell_is_asked_for(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config.json, and a hidden_size of 24 .* give num_attention_heads="):
        VideoMAEForVideoClassification.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "header"])
def test_a_damaged_weights_file_is_named(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    damaged = {"cut": content[:-100], "empty": b"", "noise": b"\xff" * 5000, "header": b"x" + content[1:]}
    path.write_bytes(damaged[damage])
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read as safetensors: ") as caught:
        VideoMAEForVideoClassification.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json is no JSON: "),
        ("[1]", "config.json holds no JSON object: give the folder of a saved model"),
        ("\udcff", "config.json is no JSON: "),
    ],
    ids=["cut", "list", "bytes"],
)
def test_a_damaged_configuration_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError, match=message):
        VideoMAEForVideoClassification.from_pretrained(folder)


def test_a_bad_field_in_the_file_is_named_with_the_file(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**values, "hidden_sise": 3}), encoding="utf-8")
    message = r"config\.json: unknown config field 'hidden_sise': did you mean 'hidden_size'\?"
    with pytest.raises(WeightsError, match=message):
        VideoMAEForVideoClassification.from_pretrained(folder)


def test_another_architecture_is_refused_by_tensor_and_shape(folder: Path) -> None:
    message = (
        r"videomae\.encoder\.layer\.\{0-2\}\.intermediate\.dense\.bias: shape \[40\] in the file, \[44\] in the "
        r"model; .*; the checkpoint is of another architecture: "
    )
    with pytest.raises(WeightsError, match=message):
        VideoMAEForVideoClassification.from_pretrained(folder, intermediate_size=44)


def test_missing_and_extra_tensors_are_all_named(folder: Path) -> None:
    edit_weights(folder, classifier__bias=None, fc_norm__weight=None, ema__decay=torch.ones(1))
    with pytest.raises(WeightsError) as caught:
        VideoMAEForVideoClassification.from_pretrained(folder)
    assert str(caught.value) == (
        f"{folder} does not fit VideoMAEForVideoClassification: it lacks fc_norm.weight, classifier.bias; "
        "it also has ema.decay"
    )


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("q_bias", "it lacks videomae.encoder.layer.1.attention.attention.query.bias"),
        ("key.weight", r"it lacks videomae.encoder.layer.1.attention.attention.key.weight$"),
    ],
)
def test_a_lost_part_of_attention_is_named(folder: Path, lost: str, named: str) -> None:
    edit_weights(folder, **{f"videomae.encoder.layer.1.attention.attention.{lost}": None})
    with pytest.raises(WeightsError, match=named):
        VideoMAEForVideoClassification.from_pretrained(folder)


def test_a_bias_on_the_keys_is_named_not_dropped(folder: Path) -> None:
    edit_weights(folder, **{"videomae.encoder.layer.1.attention.attention.key.bias": torch.ones(24)})
    with pytest.raises(WeightsError, match=r"it also has videomae.encoder.layer.1.attention.attention.key.bias$"):
        VideoMAEForVideoClassification.from_pretrained(folder)


def test_a_bare_encoder_names_what_it_lacks_and_ignores_the_head(folder: Path) -> None:
    assert isinstance(VideoMAEModel.from_pretrained(folder), VideoMAEModel)
    with pytest.raises(WeightsError, match=r"does not fit VideoMAEModel: it lacks layernorm.weight, layernorm.bias$"):
        VideoMAEModel.from_pretrained(folder, use_mean_pooling=False)


def test_a_classifier_that_becomes_a_pretraining_network_gets_a_decoder_and_says_so(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"mask_token, .*decoder.* are randomly initialized .*: train before use"):
        loaded = VideoMAEForPreTraining.from_pretrained(folder)
    assert loaded.config.decoder_hidden_size == 16


# What became of every tensor.


def test_a_report_accounts_for_every_tensor(tmp_path: Path) -> None:
    source = make_model(VideoMAEForPreTraining)
    source.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="randomly initialized"):
        target, report = VideoMAEForVideoClassification.from_pretrained(
            tmp_path, use_mean_pooling=True, output_loading_info=True
        )
    assert set(report.loaded) | set(report.fresh) == set(target.state_dict())
    assert set(report.loaded) | set(report.unused) == set(source.state_dict())
    assert set(report.fresh) == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}
    assert "mask_token" in report.unused
    assert "videomae.layernorm.weight" in report.unused
    for name in report.loaded:
        assert torch.equal(target.state_dict()[name], source.state_dict()[name])


def test_a_whole_model_takes_a_bare_encoder(tmp_path: Path) -> None:
    encoder = make_model(VideoMAEModel, use_mean_pooling=True)
    encoder.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="randomly initialized"):
        target, report = VideoMAEForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert len(report.loaded) == len(encoder.state_dict())
    assert not report.unused
    assert all(torch.equal(one, encoder.state_dict()[name]) for name, one in target.videomae.state_dict().items())


def test_a_report_speaks_in_groups() -> None:
    names = tuple(f"encoder.layer.{number}.norm" for number in range(12))
    report = LoadReport(loaded=names, fresh=("classifier.weight",), unused=())
    assert report.lines() == [
        "loaded: 12 tensors: encoder.layer (12)",
        "randomly initialized: 1 tensors: classifier.weight (1)",
        "not used: 0 tensors",
    ]


def test_the_record_of_a_training_is_kept_beside_the_weights(folder: Path) -> None:
    assert load_record(folder) == ModelRecord(), "a folder that transformers wrote has none"
    values = {"clip": {"num_frames": 4, "stride": 4, "kind": "dense"}, "note": "å", "training": {"steps": 3}}
    save_record(folder, values)
    assert load_record(folder).to_dict() == values
