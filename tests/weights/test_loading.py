"""`from_pretrained`: every tensor has a fate; other channels, classes and dtypes are reached; options are checked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_recognition import to_mmaction2
from torch import Tensor

from tiny_models import ALL_CLASSES, inputs_for, make_model, random_mask, random_video, scalar
from videomae.errors import WeightsError
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.positions import sinusoid_table
from videomae.weights.layouts import to_original, to_transformers
from videomae.weights.report import LoadReport, listed

SIZES = {"image_size": 16, "num_frames": 4, "num_attention_heads": 2, "decoder_num_attention_heads": 4}
PROJECTION = "videomae.embeddings.patch_embeddings.projection.weight"
pytestmark = pytest.mark.filterwarnings("ignore:use_mean_pooling is False")


def load(cls: type[VideoMAEPreTrainedModel], source: Path, **options: Any) -> tuple[Any, LoadReport, list[str]]:
    """Load a model; return it with the report and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, report = cls.from_pretrained(source, output_loading_info=True, **options)
    return model, report, [str(one.message) for one in caught]


def assert_accounts_for_all(report: LoadReport, file: dict[str, Tensor], model: VideoMAEPreTrainedModel) -> None:
    """Assert that each tensor of the file has one status and each of the model one origin, and that the two agree."""
    assert sorted(one.tensor for one in report.statuses) == sorted(file)
    own = set(model.state_dict())
    assert set(report.loaded) | set(report.fresh) == own
    assert not set(report.loaded) & set(report.fresh)
    names: dict[str, set[str]] = {"used": set(), "unused": set()}
    for one in report.statuses:
        parts = {one.name}
        if one.tensor.endswith(".qkv.weight"):  # three matrices here
            parts = {one.name.replace("query", part) for part in ("query", "key", "value")}
        if one.status in ("loaded", "renamed", "split", "adapted"):
            names["used"] |= parts
        elif one.status in ("unused", "unexpected"):
            names["unused"] |= parts
    assert names["used"] == set(report.loaded)
    assert names["unused"] == set(report.unused)
    assert sum(report.counts().values()) == len(file)


# Every pair of a file's kind and a model's kind.

EXPECTED_FRESH = {
    ("VideoMAEModel", "VideoMAEForPreTraining"): (
        "mask_token",
        "encoder_to_decoder.",
        "decoder.",
        "videomae.layernorm.",
    ),
    ("VideoMAEModel", "VideoMAEForVideoClassification"): ("fc_norm.", "classifier."),
    ("VideoMAEForPreTraining", "VideoMAEForVideoClassification"): ("fc_norm.", "classifier."),
    ("VideoMAEForVideoClassification", "VideoMAEForPreTraining"): (
        "mask_token",
        "encoder_to_decoder.",
        "decoder.",
        "videomae.layernorm.",
    ),
}


@pytest.mark.parametrize("wanted", ALL_CLASSES)
@pytest.mark.parametrize("held", ALL_CLASSES)
@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_every_kind_of_file_fits_every_kind_of_model(
    held: type[VideoMAEPreTrainedModel], wanted: type[VideoMAEPreTrainedModel], layout: str, tmp_path: Path
) -> None:
    source = make_model(held)
    state = dict(source.state_dict())
    if held is VideoMAEModel:
        state = {f"videomae.{name}": one for name, one in state.items()}
    file = to_transformers(state) if layout == "transformers" else to_original(state)
    torch.save(file, tmp_path / "x.pth")
    model, report, warned = load(wanted, tmp_path / "x.pth", **SIZES)
    assert_accounts_for_all(report, file, model)
    assert not report.missing
    assert not report.unexpected
    fresh = EXPECTED_FRESH.get((held.__name__, wanted.__name__), ())
    assert all(name.startswith(fresh) for name in report.fresh)
    assert bool(report.fresh) == bool(fresh)
    ignored = [
        name for name in report.unused if not name.startswith(("decoder.", "encoder_to_decoder.", "mask_token"))
    ]
    assert bool(warned) == bool(fresh or ignored)
    assert all(any(name.rpartition(".")[0] in text for text in warned) for name in ignored)
    prefix = "videomae." if wanted is VideoMAEModel else ""
    for name in report.loaded:
        assert torch.equal(model.state_dict()[name], state[prefix + name]), name


def test_mmaction2s_files_are_read_positions_and_all(tmp_path: Path) -> None:
    source = make_model(VideoMAEForVideoClassification, layer_norm_eps=1e-6).eval()
    file = to_mmaction2(source.state_dict())
    file["backbone.pos_embed"] = sinusoid_table(32, 24)  # a buffer there
    torch.save({"state_dict": file, "meta": {"seed": 3}}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    model, report, warned = load(VideoMAEForVideoClassification, tmp_path / "x.pth", **SIZES)
    assert_accounts_for_all(report, file, model)
    assert report.counts()["recomputed"] == 1
    assert report.layout == "mmaction2, under state_dict, names wrapped in backbone."
    assert not warned
    inputs = inputs_for(source)
    assert torch.equal(scalar(model(**inputs)), scalar(source(**inputs)))


def test_learned_positions_are_refused(tmp_path: Path) -> None:
    file = to_original(make_model(VideoMAEForVideoClassification).state_dict())
    file["pos_embed"] = sinusoid_table(32, 24) + 0.01
    torch.save(file, tmp_path / "x.pth")
    with pytest.raises(
        WeightsError, match="pos_embed is not the fixed table of VideoMAE, so its positions were learned"
    ):
        VideoMAEForVideoClassification.from_pretrained(tmp_path / "x.pth", **SIZES)
    _, report, warned = load(VideoMAEForVideoClassification, tmp_path / "x.pth", strict=False, **SIZES)
    assert report.unused == ("pos_embed",)
    assert any("are ignored: pos_embed (the model computes its positions" in text for text in warned)


# Strictness.


def test_what_is_left_over_or_missing_is_loaded_around_when_asked(tmp_path: Path) -> None:
    source = make_model(VideoMAEForVideoClassification)
    source.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["videomae.encoder.layer.1.output.dense.bias"]
    state["ema.decay"] = torch.ones(1)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} does not fit VideoMAEForVideoClassification: it lacks "
        "videomae.encoder.layer.1.output.dense.bias; it also has ema.decay"
    )
    model, report, warned = load(VideoMAEForVideoClassification, tmp_path, strict=False)
    assert_accounts_for_all(report, state, model)
    assert report.missing == ("videomae.encoder.layer.1.output.dense.bias",)
    assert report.unexpected == ("ema.decay",)
    assert any(
        "videomae.encoder.layer.1.output.dense.bias are missing in it and randomly initialized" in text
        for text in warned
    )
    assert any("ema.decay are ignored" in text for text in warned)


def test_other_shapes_are_made_afresh_only_when_asked(tmp_path: Path) -> None:
    make_model(VideoMAEForVideoClassification).save_pretrained(tmp_path)
    options = {"intermediate_size": 44, "num_labels": 3}
    with pytest.raises(
        WeightsError, match="the checkpoint is of another architecture: ignore_mismatched_sizes=True rand"
    ):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, **options)
    model, report, _ = load(VideoMAEForVideoClassification, tmp_path, ignore_mismatched_sizes=True, **options)
    assert_accounts_for_all(report, load_file(tmp_path / "model.safetensors"), model)
    assert ("classifier.weight", (5, 24), (3, 24)) in report.mismatched
    assert {name for name, _, _ in report.mismatched} == set(report.fresh)
    assert len(report.fresh) == 2 + 3 * 3
    assert report.counts()["re-initialized"] == len(report.fresh)


def test_the_report_has_transformers_lists(tmp_path: Path) -> None:
    make_model(VideoMAEForPreTraining).save_pretrained(tmp_path)
    _, report, _ = load(VideoMAEForVideoClassification, tmp_path)
    assert report["missing_keys"] == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}
    assert "mask_token" in report["unexpected_keys"]
    assert report["mismatched_keys"] == set()
    assert report["error_msgs"] == []


def test_a_report_reads_as_lines(tmp_path: Path) -> None:
    torch.save({"model": to_original(make_model(VideoMAEForPreTraining).state_dict())}, tmp_path / "x.pth")
    _, report, _ = load(VideoMAEForVideoClassification, tmp_path / "x.pth", **SIZES, num_channels=1)
    text = "\n".join(report.lines())
    assert text.startswith(f"{tmp_path / 'x.pth'}: original pre-training, under model\nloaded: 47 tensors: ")
    assert "randomly initialized: 4 tensors: fc_norm.weight (1)" in text
    assert f"changed: {PROJECTION}: 3 to 1 channels, mean" in text


def test_names_that_differ_by_block_are_listed_as_one() -> None:
    names = ["a.0.w", "a.1.w", "a.3.w", "b", "a.2.v", "c.10.x.1.y"]
    assert listed(names) == "a.{0-1,3}.w, b, a.2.v, c.10.x.1.y"


# Classes.


def test_other_classes_get_a_fresh_classifier_with_a_warning(tmp_path: Path) -> None:
    source = make_model(VideoMAEForVideoClassification)
    source.save_pretrained(tmp_path)
    for options in (
        {"num_labels": 3},
        {"id2label": {0: "a", 1: "b", 2: "c"}},
        {"label2id": {"a": 0, "b": 1, "c": 2}},
    ):
        model, report, warned = load(VideoMAEForVideoClassification, tmp_path, **options)
        assert model.num_labels == 3
        assert set(report.fresh) == {"classifier.weight", "classifier.bias"}
        assert len(warned) == 1
        assert (
            "classifier.weight, classifier.bias of VideoMAEForVideoClassification are randomly initialized"
            in warned[0]
        )
        assert torch.equal(model.fc_norm.weight, source.fc_norm.weight)


def test_new_names_for_as_many_classes_keep_the_classifier_unless_a_fresh_one_is_asked_for(tmp_path: Path) -> None:
    source = make_model(VideoMAEForVideoClassification)
    source.save_pretrained(tmp_path)
    names = dict(enumerate("abcde"))
    model, _, warned = load(VideoMAEForVideoClassification, tmp_path, id2label=names)
    assert model.config.id2label == names
    assert torch.equal(model.classifier.weight, source.classifier.weight)
    assert not warned
    model, report, _ = load(VideoMAEForVideoClassification, tmp_path, id2label=names, fresh_head=True)
    assert not torch.equal(model.classifier.weight, source.classifier.weight)
    assert report.fresh == ("classifier.weight", "classifier.bias")
    assert report.unused == ("classifier.bias", "classifier.weight")


def test_rows_of_a_larger_classifier_can_be_picked(tmp_path: Path) -> None:
    source = make_model(VideoMAEForVideoClassification, num_labels=71).eval()
    source.save_pretrained(tmp_path)
    rows = [70, 3, 3, 0]
    model, report, warned = load(VideoMAEForVideoClassification, tmp_path, num_labels=4, head_rows=rows)
    video = random_video(source.config)
    assert torch.allclose(model(video).logits, source(video).logits[:, rows], atol=1e-6)
    assert {one.detail for one in report.statuses if one.status == "adapted"} == {"4 of 71 rows"}
    assert not warned
    for wrong in ([0, 1], [0, 1, 2, 71], [0, 1, 2, -1]):
        with pytest.raises(WeightsError, match=r"head_rows has \d rows for 4 classes, of a classifier with 71: give"):
            VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=4, head_rows=wrong)


# Channels.


def gray_as(channels: int, config: Any) -> Tensor:
    """Return a video whose channels are all alike."""
    return random_video(config)[:, :, :1].repeat(1, 1, channels, 1, 1)


@pytest.mark.parametrize("how", ["mean", "repeat"])
@pytest.mark.parametrize("channels", [1, 3, 6, 9])
def test_alike_channels_give_what_they_gave_whatever_their_number(tmp_path: Path, channels: int, how: str) -> None:
    source = make_model(VideoMAEForVideoClassification).eval()
    source.save_pretrained(tmp_path)
    model, report, _ = load(VideoMAEForVideoClassification, tmp_path, num_channels=channels, adapt_channels=how)
    if channels == 1 and how == "repeat":  # one channel of three, taken three times
        expected = source.state_dict()[PROJECTION][:, :1] * 3
        assert torch.allclose(model.state_dict()[PROJECTION], expected)
        return
    assert torch.allclose(
        model(gray_as(channels, source.config)).logits, source(gray_as(3, source.config)).logits, atol=1e-5
    )
    changed = {one.name: one.detail for one in report.statuses if one.status == "adapted"}
    assert changed == ({} if channels == 3 else {PROJECTION: f"3 to {channels} channels, {how}"})


def test_repeated_channels_are_the_old_ones_in_turn(tmp_path: Path) -> None:
    source = make_model(VideoMAEModel)
    source.save_pretrained(tmp_path)
    weight = source.embeddings.patch_embeddings.projection.weight
    model = VideoMAEModel.from_pretrained(tmp_path, num_channels=4, adapt_channels="repeat")
    adapted = model.embeddings.patch_embeddings.projection.weight
    assert torch.allclose(adapted, weight[:, [0, 1, 2, 0]] * 0.75)


@pytest.mark.parametrize("how", ["mean", "repeat"])
def test_the_pixel_head_follows_the_channels(tmp_path: Path, how: str) -> None:
    source = make_model(VideoMAEForPreTraining).eval()
    source.save_pretrained(tmp_path)
    model, report, _ = load(VideoMAEForPreTraining, tmp_path, num_channels=6, adapt_channels=how)
    inputs = inputs_for(source)
    inputs["pixel_values"] = gray_as(3, source.config)
    old = source(**inputs).logits.unflatten(-1, (-1, 3))  # [B, M, s, C], the channel fastest
    new = model(**{**inputs, "pixel_values": gray_as(6, source.config)}).logits.unflatten(-1, (-1, 6))
    expected = old.mean(-1, keepdim=True).expand_as(new) if how == "mean" else old.repeat(1, 1, 1, 2)
    assert torch.allclose(new, expected, atol=1e-5)
    assert {one.name for one in report.statuses if one.status == "adapted"} == {
        PROJECTION,
        "decoder.head.weight",
        "decoder.head.bias",
    }


def test_other_sizes_of_clips_need_nothing(tmp_path: Path) -> None:
    source = make_model(VideoMAEForVideoClassification).eval()
    source.save_pretrained(tmp_path)
    model, report, warned = load(VideoMAEForVideoClassification, tmp_path, image_size=24, num_frames=8)
    assert not warned
    assert not report.fresh
    assert model(random_video(model.config)).logits.shape == (2, 5)


def native_inputs(model: Any) -> dict[str, Tensor]:
    """Return a clip of a model's native size, half of it hidden where a mask is needed."""
    num_tokens = model.base_model.embeddings.num_patches
    mask = {"bool_masked_pos": random_mask(num_tokens, num_tokens // 2)} if hasattr(model, "decoder") else {}
    return {"pixel_values": random_video(model.config), **mask}


@pytest.mark.parametrize(
    "sizes", [{"num_frames": 2}, {"num_frames": 8}, {"image_size": 24}, {"image_size": (16, 32)}]
)
@pytest.mark.parametrize("cls", [VideoMAEForVideoClassification, VideoMAEForPreTraining])
def test_a_model_told_other_sizes_computes_what_it_computes_on_such_a_clip(
    tmp_path: Path, cls: type[VideoMAEPreTrainedModel], sizes: dict[str, Any]
) -> None:
    source = make_model(cls).eval()
    source.save_pretrained(tmp_path / "a")
    told = cls.from_pretrained(tmp_path / "a", **sizes)
    by_config = cls.from_pretrained(tmp_path / "a", config=VideoMAEConfig.from_pretrained(tmp_path / "a", **sizes))
    told.save_pretrained(tmp_path / "b")
    inputs, native = native_inputs(told), native_inputs(source)
    for other in (source, by_config, cls.from_pretrained(tmp_path / "b")):
        torch.testing.assert_close(other(**inputs).logits, told(**inputs).logits, atol=1e-6, rtol=0)
    back = cls.from_pretrained(tmp_path / "b", num_frames=4, image_size=16)
    assert back.config.position_grid is None
    for other in (told, back):  # not blurred by a second interpolation
        torch.testing.assert_close(other(**native).logits, source(**native).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["VideoMAEForVideoClassification", "VideoMAEForPreTraining"])
def test_positions_are_made_anew_as_by_transformers_only_when_asked(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    cls = {one.__name__: one for one in ALL_CLASSES}[name]
    source = make_model(cls)
    source.save_pretrained(tmp_path)
    fresh = cls.from_pretrained(tmp_path, num_frames=8, interpolate_positions=False)
    theirs = getattr(transformers, name).from_pretrained(tmp_path, num_frames=8).eval()
    inputs = native_inputs(fresh)
    torch.testing.assert_close(fresh(**inputs).logits, theirs(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(fresh(**inputs).logits, source.eval()(**inputs).logits, atol=1e-3)


def test_without_a_configuration_the_sizes_given_are_those_of_the_file(tmp_path: Path) -> None:
    source = make_model(VideoMAEModel)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    sizes = {"num_attention_heads": 2, "num_frames": 4, "image_size": 16}
    model = VideoMAEModel.from_pretrained(tmp_path / "a.pt", **sizes)
    assert torch.equal(model.embeddings.position_embeddings, source.embeddings.position_embeddings)
    grid = VideoMAEModel.from_pretrained(tmp_path / "a.pt", **sizes, position_grid=(8, 4, 4))
    assert grid.config.position_grid == (8, 4, 4)


def test_a_grid_that_nobody_has_memory_for_is_refused(tmp_path: Path) -> None:
    make_model(VideoMAEModel).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"position_grid": null', '"position_grid": [99999, 99999, 99999]'))
    with pytest.raises(WeightsError, match="position_grid"):
        VideoMAEModel.from_pretrained(tmp_path)
