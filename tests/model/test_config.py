"""The configuration: transformers' fields, its files, and every refusal."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from videomae.errors import ConfigError, WeightsError
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.presets import PRESETS

GOLDEN = Path(__file__).parents[1] / "golden"
OURS_ALONE = set(
    "drop_path_rate classifier_dropout init_values use_cls_token head_layer_norm_eps position_grid".split()
)
# Values that differ from every default, so that a field that is lost on the way is noticed.
CHANGED: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 1,
    "num_frames": 6,
    "tubelet_size": 3,
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
    "initializer_range": 0.03,
    "layer_norm_eps": 1e-6,
    "qv_bias": False,
    "use_mean_pooling": False,
    "decoder_num_attention_heads": 2,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 3,
    "decoder_intermediate_size": 72,
    "norm_pix_loss": False,
}
LABELS = {0: "jump", 1: "run", 2: "sit"}


def their_fields() -> dict[str, Any]:
    """Return the fields and defaults that transformers' class itself declares."""
    own = transformers.VideoMAEConfig.__annotations__
    theirs = transformers.VideoMAEConfig()
    return {name: getattr(theirs, name) for name in own if name != "model_type"}


def test_every_field_and_default_of_transformers_is_ours() -> None:
    ours = VideoMAEConfig()
    theirs = their_fields()
    assert set(theirs) == set(CHANGED), "transformers' fields have changed"
    assert {name: getattr(ours, name) for name in theirs} == theirs


@pytest.mark.parametrize("name", ["num_labels", "id2label", "label2id", "problem_type", "return_dict"])
def test_the_general_fields_have_the_defaults_of_transformers(name: str) -> None:
    assert getattr(VideoMAEConfig(), name) == getattr(transformers.VideoMAEConfig(), name)


def test_the_fields_that_are_ours_alone_change_nothing_by_default() -> None:
    names = {one.name for one in dataclasses.fields(VideoMAEConfig)}
    general = {"problem_type", "id2label", "label2id", "output_attentions", "output_hidden_states", "return_dict"}
    assert names == set(CHANGED) | OURS_ALONE | general
    defaults = VideoMAEConfig()
    assert {name: getattr(defaults, name) for name in OURS_ALONE} == {
        "drop_path_rate": 0.0,
        "classifier_dropout": 0.0,
        "init_values": 0.0,
        "use_cls_token": False,
        "head_layer_norm_eps": None,
        "position_grid": None,
    }


@pytest.mark.parametrize("value", [True, False])
def test_qkv_bias_is_another_name_of_qv_bias(value: bool) -> None:
    config = VideoMAEConfig(qkv_bias=value)
    assert (config.qv_bias, config.qkv_bias) == (value, value)
    written = config.to_dict()
    assert (written["qv_bias"], written["qkv_bias"]) == (value, value)
    assert VideoMAEConfig(qkv_bias=value, qv_bias=value) == config


def test_two_values_for_the_one_bias_switch_are_refused() -> None:
    with pytest.raises(ConfigError, match="qkv_bias is True but qv_bias is False: they are one setting, give one"):
        VideoMAEConfig(qkv_bias=True, qv_bias=False)


@pytest.mark.parametrize("spelling", ["qv_bias", "qkv_bias"])
@pytest.mark.parametrize("in_file", [["qv_bias"], ["qkv_bias"], ["qv_bias", "qkv_bias"]])
def test_the_callers_bias_switch_wins_over_the_files_in_either_spelling(spelling: str, in_file: list[str]) -> None:
    assert VideoMAEConfig.from_dict(dict.fromkeys(in_file, True), **{spelling: False}).qv_bias is False
    assert VideoMAEConfig.from_dict(dict.fromkeys(in_file, False)).qv_bias is False


def test_our_file_is_read_by_transformers(tmp_path: Path) -> None:
    VideoMAEConfig(**CHANGED, id2label=LABELS).to_json_file(tmp_path / "config.json")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(theirs, transformers.VideoMAEConfig)
    assert {name: getattr(theirs, name) for name in CHANGED} == CHANGED
    assert theirs.id2label == LABELS
    assert theirs.num_labels == 3


def test_transformers_file_is_read_by_us(tmp_path: Path) -> None:
    theirs = transformers.VideoMAEConfig(**CHANGED, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    theirs.save_pretrained(tmp_path)
    ours = VideoMAEConfig.from_dict(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
    assert ours == VideoMAEConfig(**CHANGED, id2label=LABELS)


def test_a_published_file_in_the_old_spelling_is_read() -> None:
    published = {
        "architectures": ["VideoMAEForPreTraining"],
        "model_type": "videomae",
        "qkv_bias": True,
        "use_mean_pooling": False,
        "layer_norm_eps": 1e-12,
        "torch_dtype": "float32",
        "transformers_version": "4.22.0.dev0",
    }
    assert VideoMAEConfig.from_dict(published) == VideoMAEConfig(use_mean_pooling=False)


@pytest.mark.parametrize("values", [CHANGED, {"image_size": [32, 64], "patch_size": (8, 16)}, {}], ids=str)
def test_json_round_trip_returns_an_equal_configuration(values: dict[str, Any], tmp_path: Path) -> None:
    settings = {"drop_path_rate": 0.1, "init_values": 1e-5, "use_cls_token": True, "problem_type": "regression"}
    config = VideoMAEConfig(**values, **settings, head_layer_norm_eps=1e-6, num_labels=4)
    config.to_json_file(tmp_path / "config.json")
    assert VideoMAEConfig.from_dict(json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))) == config


def test_the_file_with_our_own_fields_still_opens_in_transformers(tmp_path: Path) -> None:
    VideoMAEConfig(drop_path_rate=0.1, init_values=0.1, head_layer_norm_eps=1e-6).to_json_file(
        tmp_path / "config.json"
    )
    assert transformers.AutoConfig.from_pretrained(tmp_path).hidden_size == 768


def test_labels_may_be_given_by_count_by_name_or_backwards() -> None:
    assert VideoMAEConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    by_name = VideoMAEConfig(id2label={"0": "jump", "1": "run"})
    assert (by_name.id2label, by_name.label2id) == ({0: "jump", 1: "run"}, {"jump": 0, "run": 1})
    assert VideoMAEConfig(label2id={"jump": 0, "run": 1}) == by_name


def test_replace_changes_some_fields_and_leaves_the_original() -> None:
    config = VideoMAEConfig(id2label=LABELS)
    other = config.replace(num_labels=7, qkv_bias=False, drop_path_rate=0.2)
    assert (other.num_labels, other.qv_bias, other.drop_path_rate) == (7, False, 0.2)
    assert other.label2id["LABEL_6"] == 6
    assert config == VideoMAEConfig(id2label=LABELS)


@pytest.mark.parametrize("settings", [{"num_labels": 5}, {"id2label": {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}}])
def test_new_labels_replace_those_of_a_file(settings: dict[str, Any]) -> None:
    file = VideoMAEConfig(id2label=LABELS).to_dict()
    config = VideoMAEConfig.from_dict(file, **settings)
    assert config.num_labels == 5
    assert set(config.label2id) == set(config.id2label.values())


@pytest.mark.parametrize(
    ("settings", "epsilon"),
    [({}, 1e-5), ({"layer_norm_eps": 1e-6}, 1e-6), ({"layer_norm_eps": 1e-6, "head_layer_norm_eps": 1e-4}, 1e-4)],
)
def test_epsilon_of_the_head_norms_follows_transformers_or_the_original(
    settings: dict[str, float], epsilon: float
) -> None:
    assert VideoMAEConfig(**settings).head_norm_eps == epsilon


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden_size": 8}, "unknown config field 'hiden_size': did you mean 'hidden_size'?"),
        ({"zzz": 8}, "unknown config field 'zzz': see VideoMAEConfig for the fields"),
        ({"hidden_size": 0}, "config.hidden_size is 0; it must be a whole number of at least 1"),
        ({"num_hidden_layers": 2.5}, "config.num_hidden_layers is 2.5; it must be a whole number of at least 1"),
        ({"num_channels": True}, "config.num_channels is True; it must be a whole number of at least 1"),
        ({"image_size": 224.0}, "config.image_size is 224.0; it must be a whole number or a (height, width) pair"),
        ({"image_size": (1, 2, 3)}, "config.image_size is (1, 2, 3); it must be a whole number or a"),
        ({"patch_size": 0}, "config.patch_size is 0; it must be positive"),
        ({"image_size": 225}, "config.image_size has height 225, which config.patch_size 16 does not divide: use a"),
        ({"image_size": (32, 40)}, "config.image_size has width 40, which config.patch_size 16 does not divide"),
        ({"num_frames": 15}, "config.num_frames 15 is not divisible by config.tubelet_size 2: change one of them"),
        ({"hidden_size": 100}, "config.hidden_size 100 is not divisible by config.num_attention_heads 12"),
        ({"decoder_hidden_size": 100}, "config.decoder_hidden_size 100 is not divisible by config.decoder_num_att"),
        ({"drop_path_rate": 1.0}, "config.drop_path_rate is 1.0; it must be in [0, 1)"),
        ({"hidden_dropout_prob": -0.1}, "config.hidden_dropout_prob is -0.1; it must be in [0, 1)"),
        ({"attention_probs_dropout_prob": "0.1"}, "config.attention_probs_dropout_prob is '0.1'; it must be in"),
        ({"classifier_dropout": True}, "config.classifier_dropout is True; it must be in [0, 1)"),
        ({"init_values": -1}, "config.init_values is -1; it must be in [0, 1)"),
        ({"layer_norm_eps": 0.0}, "config.layer_norm_eps is 0.0; it must be a positive number"),
        ({"head_layer_norm_eps": -1e-6}, "config.head_layer_norm_eps is -1e-06; it must be a positive number"),
        ({"initializer_range": "0.02"}, "config.initializer_range is '0.02'; it must be a positive number"),
        ({"qv_bias": "no"}, "config.qv_bias is 'no'; it must be true or false"),
        ({"position_grid": (1, 2)}, "config.position_grid is (1, 2); it must be (frames, rows, columns) of tokens"),
        ({"position_grid": (0, 2, 2)}, "config.position_grid is (0, 2, 2); it must be"),
        ({"use_mean_pooling": 1}, "config.use_mean_pooling is 1; it must be true or false"),
        (
            {"hidden_act": "gelo"},
            "config.hidden_act is 'gelo'; choose one of gelu, gelu_pytorch_tanh, gelu_new, relu",
        ),
        ({"num_labels": 0}, "config.num_labels is 0; it must be a whole number of at least 1"),
        ({"num_labels": 3, "id2label": {0: "a"}}, "num_labels is 3, but id2label names 1 classes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_field_is_named_with_its_value_and_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VideoMAEConfig(**settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_models_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_type is 'vit'; this package reads 'videomae' configurations only"):
        VideoMAEConfig.from_dict({"model_type": "vit", "hidden_size": 768})


def test_an_unknown_key_of_a_file_is_refused_and_a_general_one_ignored() -> None:
    assert VideoMAEConfig.from_dict({"use_cache": True, "_name_or_path": "x"}) == VideoMAEConfig()
    with pytest.raises(ConfigError, match="unknown config field 'num_experts'"):
        VideoMAEConfig.from_dict({"num_experts": 8})


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'tiny': choose one of small, base, large, huge, giant"):
        VideoMAEConfig.preset("tiny")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("small", 22_033_936),
        ("base", 86_534_800),
        ("large", 304_270_736),
        ("huge", 632_119_440),
        ("giant", 1_012_174_352),
    ],
)
def test_classifiers_have_the_published_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        model = VideoMAEForVideoClassification(VideoMAEConfig.preset(name, num_labels=400))
    assert model.num_parameters() == count


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("small", {}, 24_029_376),
        ("base", {}, 94_210_944),
        ("large", {}, 342_996_992),
        ("large", {"decoder_num_hidden_layers": 4}, 317_782_016),
        ("huge", {}, 692_487_296),
        # VideoMAE V2's huge: a shallower and narrower decoder.
        (
            "huge",
            {"decoder_num_hidden_layers": 4, "decoder_hidden_size": 512, "decoder_intermediate_size": 2048},
            645_659_392,
        ),
        ("giant", {}, 1_026_306_560),
    ],
)
def test_pretraining_networks_have_the_published_parameter_counts(
    name: str, settings: dict[str, int], count: int
) -> None:
    # The published counts hold the encoder's final norm, the mask token and the decoder, and no position table.
    with torch.device("meta"):
        model = VideoMAEForPreTraining(VideoMAEConfig.preset(name, use_mean_pooling=False, **settings))
    assert model.num_parameters() == count


def test_every_preset_is_counted_above() -> None:
    assert list(PRESETS) == ["small", "base", "large", "huge", "giant"]


# What transformers' configurations do besides.


def test_a_configuration_is_saved_and_read_without_a_network(tmp_path: Path) -> None:
    config = VideoMAEConfig(hidden_size=48, num_attention_heads=4, id2label={0: "cut", 1: "jump"})
    config.save_pretrained(tmp_path / "new" / "folder")
    assert VideoMAEConfig.from_pretrained(tmp_path / "new" / "folder") == config
    assert VideoMAEConfig.from_pretrained(str(tmp_path / "new" / "folder" / "config.json"), num_frames=8) == (
        config.replace(num_frames=8, position_grid=(8, 14, 14))
    )
    theirs = transformers.VideoMAEConfig.from_pretrained(tmp_path / "new" / "folder")
    assert theirs.id2label == config.id2label
    with pytest.raises(WeightsError, match=r"give a model folder with config\.json, or that file"):
        VideoMAEConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.json: config\.num_frames is 0"):
        VideoMAEConfig.from_pretrained(tmp_path / "new" / "folder", num_frames=0)


def test_the_heads_of_the_small_networks_are_corrected_in_a_configuration_too(tmp_path: Path) -> None:
    sizes = {"hidden_size": 384, "num_attention_heads": 16, "intermediate_size": 1536}
    transformers.VideoMAEConfig(**sizes, num_labels=400).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="says 16 heads at hidden_size 384"):
        assert VideoMAEConfig.from_pretrained(tmp_path).num_attention_heads == 6
    assert VideoMAEConfig.from_pretrained(tmp_path, num_attention_heads=16).num_attention_heads == 16


def test_fields_change_together_or_not_at_all() -> None:
    config = VideoMAEConfig()
    config.update({"num_frames": 32, "id2label": {0: "a", 1: "b", 2: "c"}})
    assert (config.num_frames, config.num_labels, config.label2id["c"]) == (32, 3, 2)
    before = config.to_dict()
    with pytest.raises(ConfigError, match="unknown config field 'num_frame'"):
        config.update({"num_frames": 16, "num_frame": 8})
    with pytest.raises(ConfigError, match=r"config\.hidden_size"):
        config.update({"num_frames": 16, "hidden_size": -1})
    assert config.to_dict() == before
    config.num_labels = 3
    assert config.id2label[2] == "c"
    config.num_labels = 2
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}


def test_what_differs_from_the_defaults_is_told() -> None:
    assert VideoMAEConfig().to_diff_dict() == {"model_type": "videomae"}
    assert VideoMAEConfig(num_frames=32).to_diff_dict() == {"model_type": "videomae", "num_frames": 32}


def test_attributes_of_ones_own_are_kept_in_files_and_copies_and_change_nothing(tmp_path: Path) -> None:
    config = VideoMAEConfig(hidden_size=48, num_attention_heads=4)
    config.loss_weights, config.finetuning_task = [1.0, 2.0], "gestures"
    config.save_pretrained(tmp_path)
    again = VideoMAEConfig.from_pretrained(tmp_path, num_frames=8)
    for one in (again, config.replace(num_frames=8), copy.deepcopy(config)):
        assert (one.loss_weights, one.finetuning_task) == ([1.0, 2.0], "gestures")
    assert again.hidden_size == 48
    theirs = transformers.VideoMAEConfig.from_pretrained(tmp_path)
    assert theirs.loss_weights == [1.0, 2.0]
    values = {**config.to_dict(), "update": 3, "num_labels": 2}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert callable(VideoMAEConfig.from_pretrained(tmp_path).update)


def test_a_configuration_has_the_general_attributes_of_transformers(tmp_path: Path) -> None:
    config = VideoMAEConfig()
    assert (config.name_or_path, config._name_or_path, config.architectures) == ("", "", None)
    assert (config.use_return_dict, config._attn_implementation, config.torch_dtype) == (True, "sdpa", None)
    config.save_pretrained(tmp_path)
    assert VideoMAEConfig.from_pretrained(tmp_path).name_or_path == str(tmp_path)
    assert "name_or_path" not in (tmp_path / "config.json").read_text()
