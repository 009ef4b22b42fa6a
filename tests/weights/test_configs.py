"""Configurations: what files say, what shapes show, what is known to be wrong, and who wins."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tiny_models import TINY, inputs_for, make_model, randomize, scalar
from videomae.errors import ConfigError, WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.weights.layouts import to_original, to_transformers
from videomae.weights.report import LoadReport

SMALL: dict[str, Any] = {
    **{name: TINY[name] for name in ("image_size", "patch_size", "num_frames", "tubelet_size")},
    "hidden_size": 384,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "intermediate_size": 8,
}
pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


def save_as_transformers(model: VideoMAEPreTrainedModel, folder: Path, **changes: Any) -> Path:
    """Write a folder with a `config.json` such as transformers writes; a change to None removes the entry."""
    model.save_pretrained(folder)
    fields = set(transformers.VideoMAEConfig().to_dict()) | {"id2label", "label2id", "qkv_bias"}
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values = {**{name: value for name, value in values.items() if name in fields}, **changes}
    kept = {name: value for name, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    return folder


def load(cls: type[VideoMAEPreTrainedModel], source: Path, **options: Any) -> tuple[Any, LoadReport, list[str]]:
    """Load a model; return it with the report and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, report = cls.from_pretrained(source, output_loading_info=True, **options)
    return model, report, [str(one.message) for one in caught]


# The small models, released with 16 heads.


@pytest.mark.parametrize("num_labels", [400, 174])
def test_the_published_small_networks_get_their_six_heads(tmp_path: Path, num_labels: int) -> None:
    model = make_model(VideoMAEForVideoClassification, **SMALL, num_labels=num_labels)
    names = {number: f"class {number}" for number in range(num_labels)}
    save_as_transformers(model, tmp_path, id2label=names, label2id=None)
    loaded, report, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert loaded.config.num_attention_heads == 6
    assert loaded.videomae.encoder.layer[0].attention.attention.num_attention_heads == 6
    assert len(warned) == len(report.repairs) == 1
    assert "says 16 heads at hidden_size 384" in warned[0]
    assert "6 are used; give num_attention_heads=16 to compute as the file says" in warned[0]
    right = randomize(VideoMAEForVideoClassification(model.config.replace(num_attention_heads=6)))
    inputs = inputs_for(right)
    assert torch.equal(scalar(loaded(**inputs)), scalar(right.eval()(**inputs)))
    assert not torch.equal(scalar(loaded(**inputs)), scalar(model.eval()(**inputs))), "the heads make no difference"


@pytest.mark.parametrize("heads", [16, 6, 12])
def test_the_callers_number_of_heads_wins(tmp_path: Path, heads: int) -> None:
    save_as_transformers(make_model(VideoMAEForVideoClassification, **SMALL, num_labels=400), tmp_path)
    loaded, report, warned = load(VideoMAEForVideoClassification, tmp_path, num_attention_heads=heads)
    assert loaded.config.num_attention_heads == heads
    assert not warned
    assert not report.repairs


def test_a_small_network_that_was_fine_tuned_with_sixteen_heads_keeps_them_with_a_warning(tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification, **SMALL, num_labels=3)
    save_as_transformers(model, tmp_path, id2label={0: "cut", 1: "jump", 2: "run"}, label2id=None)
    loaded, _, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert loaded.config.num_attention_heads == 16
    assert len(warned) == 1
    assert "was fine-tuned with 16, so 16 is kept; give num_attention_heads=6 if it was not" in warned[0]


def test_what_this_package_saved_means_what_it_says(tmp_path: Path) -> None:
    make_model(VideoMAEForVideoClassification, **SMALL, num_labels=400).save_pretrained(tmp_path)
    loaded, _, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert loaded.config.num_attention_heads == 16
    assert not warned


def test_other_widths_with_sixteen_heads_are_left_alone(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEForVideoClassification, **{**SMALL, "hidden_size": 64}), tmp_path)
    loaded, _, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert loaded.config.num_attention_heads == 16
    assert not warned


# Biases and pooling.


@pytest.mark.parametrize("spelling", ["qkv_bias", "qv_bias"])
def test_biases_that_the_configuration_denies_are_used(tmp_path: Path, spelling: str) -> None:
    model = make_model(VideoMAEForVideoClassification).eval()
    save_as_transformers(model, tmp_path, **{"qkv_bias": None, "qv_bias": None, spelling: False})
    loaded, report, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert loaded.config.qv_bias
    assert [text for text in warned if "the file has them: they are used" in text]
    assert report.repairs
    inputs = inputs_for(model)
    assert torch.equal(scalar(loaded(**inputs)), scalar(model(**inputs)))


def test_a_caller_who_denies_biases_is_told_that_there_are_some(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path)
    with pytest.raises(
        WeightsError, match=r"it also has videomae\.encoder\.layer\.\{0-2\}\.attention\.attention\.query\.bias"
    ):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, qkv_bias=False)


@pytest.mark.parametrize("spelling", ["qkv_bias", "qv_bias"])
def test_either_spelling_of_the_switch_is_read(tmp_path: Path, spelling: str) -> None:
    model = make_model(VideoMAEForVideoClassification, qv_bias=False)
    save_as_transformers(model, tmp_path, **{"qkv_bias": None, "qv_bias": None, spelling: False})
    loaded, _, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert not loaded.config.qv_bias
    assert not warned


def test_a_classifier_from_a_pretraining_network_averages_tokens(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEForPreTraining), tmp_path)
    loaded, report, warned = load(VideoMAEForVideoClassification, tmp_path, num_labels=7)
    assert loaded.config.use_mean_pooling
    assert loaded.fc_norm is not None
    assert [text for text in warned if "one corner patch alone, since there is no CLS token: it averages" in text]
    assert len(report.repairs) == 1
    assert set(report.fresh) == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}


def test_the_callers_pooling_wins(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEForPreTraining), tmp_path)
    loaded, report, warned = load(VideoMAEForVideoClassification, tmp_path, use_mean_pooling=False)
    assert not loaded.config.use_mean_pooling
    assert not report.repairs
    assert set(report.fresh) == {"classifier.weight", "classifier.bias"}
    assert [text for text in warned if "the classifier sees token 0 alone" in text]


def test_a_classifier_that_was_trained_on_one_token_stays_so_and_says_it(tmp_path: Path) -> None:
    model = make_model(VideoMAEForVideoClassification, use_mean_pooling=False).eval()
    save_as_transformers(model, tmp_path)
    loaded, report, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert not loaded.config.use_mean_pooling
    assert not report.repairs
    assert len([text for text in warned if "the classifier sees token 0 alone" in text]) == 1
    inputs = inputs_for(model)
    assert torch.equal(scalar(loaded(**inputs)), scalar(model(**inputs)))


# What files say, what shapes show.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 32),
        ("num_hidden_layers", 2),
        ("intermediate_size", 41),
        ("patch_size", 8),
        ("tubelet_size", 1),
        ("num_channels", 1),
    ],
)
def test_a_configuration_that_contradicts_the_tensors_is_refused(tmp_path: Path, name: str, value: int) -> None:
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path, **{name: value})
    has = {**TINY, "num_channels": 3}[name]
    with pytest.raises(WeightsError, match=rf"config\.json says {name} {value}, but the tensors have {has}"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["decoder_hidden_size", "decoder_num_hidden_layers", "decoder_intermediate_size"])
def test_a_wrong_decoder_matters_to_pretraining_alone(tmp_path: Path, name: str) -> None:
    save_as_transformers(make_model(VideoMAEForPreTraining), tmp_path, **{name: 48})
    with pytest.raises(WeightsError, match=rf"says {name} 48, but the tensors have {TINY[name]}"):
        VideoMAEForPreTraining.from_pretrained(tmp_path)
    assert isinstance(VideoMAEModel.from_pretrained(tmp_path), VideoMAEModel)


def test_a_wrong_number_of_classes_is_refused_unless_the_caller_names_one(tmp_path: Path) -> None:
    labels = {number: f"class {number}" for number in range(6)}
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path, id2label=labels, label2id=None)
    with pytest.raises(WeightsError, match="names 6 classes, but the classifier has 5 rows: give num_labels="):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=5).num_labels == 5


def test_a_configuration_without_labels_takes_them_from_the_classifier(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path, id2label=None, label2id=None)
    assert VideoMAEForVideoClassification.from_pretrained(tmp_path).num_labels == 5


def test_entries_of_other_programs_are_left_aside_with_a_warning(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path, fps=25, my_notes={"a": 1})
    _, _, warned = load(VideoMAEForVideoClassification, tmp_path)
    assert [text for text in warned if "entries that mean nothing here: fps, my_notes" in text]


def test_blame_falls_on_the_file_or_on_the_caller(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path, num_attention_heads=7)
    with pytest.raises(WeightsError, match=r"config\.json: config\.hidden_size 24 is not divisible by .*heads 7"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert VideoMAEForVideoClassification.from_pretrained(tmp_path, num_attention_heads=2)
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path)
    with pytest.raises(ConfigError, match=r"config\.hidden_size 24 is not divisible by .*heads 7"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, num_attention_heads=7)
    with pytest.raises(ConfigError, match="unknown config field 'num_lables'"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, num_lables=7)


def test_class_numbers_must_count_from_zero(tmp_path: Path) -> None:
    labels = {number: f"class {number}" for number in (0, 1, 2, 3, 9)}
    save_as_transformers(make_model(VideoMAEForVideoClassification), tmp_path, id2label=labels, label2id=None)
    with pytest.raises(WeightsError, match="id2label does not number its 5 classes from 0 on"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


def test_a_given_configuration_is_taken_as_it_is(tmp_path: Path) -> None:
    model = make_model(VideoMAEForPreTraining)
    save_as_transformers(model, tmp_path / "a", num_attention_heads=3)
    config = model.config.replace(use_mean_pooling=False)
    loaded, report, _ = load(VideoMAEForVideoClassification, tmp_path / "a", config=config, num_labels=3)
    assert loaded.config == config.replace(num_labels=3)
    assert not report.repairs
    config.to_json_file(tmp_path / "other.json")
    assert VideoMAEForPreTraining.from_pretrained(tmp_path / "a", config=tmp_path / "other.json").config == config
    with pytest.raises(ConfigError, match=r"config is .*nowhere: give a VideoMAEConfig, or a folder or file"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a", config=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="config is a dict: give a VideoMAEConfig"):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "a", config={"hidden_size": 24})


# No configuration at all.


def test_the_sizes_are_read_off_the_shapes(tmp_path: Path) -> None:
    settings = {"hidden_size": 384, "num_attention_heads": 6, "decoder_hidden_size": 192, "layer_norm_eps": 1e-6}
    model = make_model(
        VideoMAEForPreTraining, **settings, decoder_num_attention_heads=3, image_size=224, num_frames=16
    )
    torch.save({"model": to_original(model.state_dict())}, tmp_path / "x.pth")
    loaded, report, warned = load(VideoMAEForPreTraining, tmp_path / "x.pth")
    unknown = {"id2label": model.config.id2label, "label2id": model.config.label2id}
    assert loaded.config.replace(**unknown) == model.config
    assert not warned
    assert report.notes == (
        "there is no config.json: num_frames 16 is assumed",
        "there is no config.json: image_size 224 is assumed",
        "there is no config.json: num_attention_heads 6 is that of the model of this width",
        "there is no config.json: decoder_num_attention_heads 3 is that of the model of this width",
    )


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16)])
def test_the_heads_of_known_widths_are_known(tmp_path: Path, width: int, heads: int) -> None:
    settings = {"hidden_size": width, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 4}
    state = to_original(VideoMAEForVideoClassification(VideoMAEConfig(**{**TINY, **settings})).state_dict())
    torch.save(state, tmp_path / "x.pth")
    assert (
        VideoMAEModel.from_pretrained(tmp_path / "x.pth", image_size=16, num_frames=4).config.num_attention_heads
        == heads
    )


def test_unknown_widths_ask_for_their_heads(tmp_path: Path) -> None:
    torch.save(to_original(make_model(VideoMAEForPreTraining).state_dict()), tmp_path / "x.pth")
    with pytest.raises(
        WeightsError, match=r"a hidden_size of 24 is that of no published model .* give num_attention_h"
    ):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "x.pth")
    with pytest.raises(
        WeightsError, match=r"a decoder_hidden_size of 16 is that of no .* give decoder_num_attention_he"
    ):
        VideoMAEForPreTraining.from_pretrained(tmp_path / "x.pth", num_attention_heads=2)
    assert VideoMAEModel.from_pretrained(tmp_path / "x.pth", num_attention_heads=2)


@pytest.mark.parametrize(("layout", "eps"), [("original", 1e-6), ("transformers", 1e-12)])
def test_the_epsilon_is_that_of_the_layouts_program(tmp_path: Path, layout: str, eps: float) -> None:
    state = make_model(VideoMAEForVideoClassification).state_dict()
    torch.save(to_original(state) if layout == "original" else to_transformers(state), tmp_path / "x.pth")
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path / "x.pth", num_attention_heads=2)
    assert loaded.config.layer_norm_eps == eps


# VideoMAE V2's repositories.


def v2_config(**changes: Any) -> dict[str, Any]:
    """Return a configuration in the form of those repositories, at the tiny size."""
    block = {
        "img_size": 16,
        "patch_size": 4,
        "in_chans": 3,
        "num_classes": 0,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 2,
        "mlp_ratio": 40 / 24,
        "qkv_bias": True,
        "qk_scale": None,
        "norm_layer": "nn.LayerNorm",
        "layer_norm_eps": 1e-6,
        "init_values": 0.0,
        "use_learnable_pos_emb": False,
        "tubelet_size": 2,
        "use_mean_pooling": True,
        "num_frames": 4,
        "cos_attn": False,
    }
    return {
        "model_type": "VideoMAEv2_Base",
        "architectures": ["VideoMAEv2_Base"],
        "auto_map": {"AutoModel": "modeling_videomaev2.VideoMAEv2"},
        "model_config": {**block, **changes},
    }


def save_v2(folder: Path, **changes: Any) -> VideoMAEForVideoClassification:
    """Write a folder as those repositories are: names wrapped in `model.`, a norm but no head; return the network."""
    model = make_model(VideoMAEForVideoClassification, layer_norm_eps=1e-6).eval()
    state = {f"model.{name}": one for name, one in to_original(model.state_dict()).items() if "head" not in name}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(v2_config(**changes)), encoding="utf-8")
    return model


def test_a_v2_repository_is_read(tmp_path: Path) -> None:
    model = save_v2(tmp_path)
    loaded, report, warned = load(VideoMAEModel, tmp_path)
    assert len(warned) == 1
    assert "are ignored: fc_norm.weight, fc_norm.bias (the model has no norm before" in warned[0]
    assert report.layout == "original fine-tuning, of VideoMAE V2's repositories, names wrapped in model."
    assert set(report.unused) == {"fc_norm.weight", "fc_norm.bias"}
    inputs = {"pixel_values": inputs_for(model)["pixel_values"]}
    assert torch.equal(loaded(**inputs).last_hidden_state, model.videomae(**inputs).last_hidden_state)


def test_a_classifier_from_a_v2_repository_keeps_its_norm(tmp_path: Path) -> None:
    model = save_v2(tmp_path)
    loaded, report, warned = load(VideoMAEForVideoClassification, tmp_path, num_labels=9)
    assert torch.equal(loaded.fc_norm.weight, model.fc_norm.weight)
    assert set(report.fresh) == {"classifier.weight", "classifier.bias"}
    assert len(warned) == 1
    assert loaded.config.head_norm_eps == 1e-6


@pytest.mark.parametrize("name", ["cos_attn", "use_learnable_pos_emb"])
def test_v2_switches_that_no_released_network_has_are_refused(tmp_path: Path, name: str) -> None:
    save_v2(tmp_path, **{name: True})
    with pytest.raises(WeightsError, match=f"sets {name}, which no released model has"):
        VideoMAEModel.from_pretrained(tmp_path)


def test_another_familys_configuration_is_refused(tmp_path: Path) -> None:
    save_as_transformers(make_model(VideoMAEModel), tmp_path, model_type="timesformer")
    with pytest.raises(WeightsError, match=r"config\.json is of a 'timesformer' model, not of VideoMAE"):
        VideoMAEModel.from_pretrained(tmp_path)
