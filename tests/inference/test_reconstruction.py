"""Reconstructions: what is exact, what leaks, what does not, and the image of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.errors import ConfigError, RunError, WeightsError
from videomae.inference.loaded import LoadedModel, load_pretraining
from videomae.inference.reconstruction import (
    PREDICTION_LABEL,
    TRUE_STATISTICS_LABEL,
    Reconstruction,
    compose_versions,
    reconstruct,
    reconstruct_video,
    reconstruction_strip,
    save_strip,
)
from videomae.masking import MaskConfig
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import TokenGrid, complement, interpolated_statistics, patchify
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.decode import read_clip
from videomae.video.sampling import ClipConfig, centre_clip

Loaded = LoadedModel[VideoMAEForPreTraining]
MASK = MaskConfig(kind="tube", ratio=0.75)


@pytest.fixture
def loaded(pretraining_folder: Path) -> Loaded:
    return load_pretraining(pretraining_folder, device="cpu")


def pixel_mask(hidden: np.ndarray) -> np.ndarray:
    """Spread `[t, h, w]` over tubelets of 2x8x8 pixels: `[T, H, W]`."""
    return hidden.repeat(2, axis=0).repeat(8, axis=1).repeat(8, axis=2)


def clip_pixels(loaded: Loaded, video: Path) -> torch.Tensor:
    frames = read_clip(video, centre_clip(30, loaded.clip))
    return loaded.processor(frames, return_tensors="pt").pixel_values


def make_constant(loaded: Loaded, value: float) -> None:
    """Make a model that predicts the same number everywhere."""
    with torch.no_grad():
        loaded.model.decoder.head.weight.zero_()
        loaded.model.decoder.head.bias.fill_(value)


def some_visible() -> torch.Tensor:
    return torch.tensor([[0, 5, 10, 15, 16, 21, 26, 31]])  # 8 of 2x4x4 tokens


def test_visible_patches_are_shown_exactly_in_every_version(loaded: Loaded, video: Path) -> None:
    result = reconstruct_video(loaded, video, mask=MASK)
    frames = read_clip(video, centre_clip(30, loaded.clip))
    processed = loaded.processor(frames, return_tensors="pt", do_rescale=False, do_normalize=False).pixel_values[0]
    assert np.array_equal(result.original, processed.permute(0, 2, 3, 1).numpy())
    seen = ~pixel_mask(result.hidden)
    assert 0 < seen.sum() < seen.size
    assert result.with_true_statistics is not None
    for version in (result.masked, result.with_true_statistics, result.prediction):
        assert np.array_equal(version[seen], result.original[seen])
        assert not np.array_equal(version[~seen], result.original[~seen])


def test_hidden_patches_are_grey_in_what_the_encoder_saw(loaded: Loaded, video: Path) -> None:
    result = reconstruct_video(loaded, video, mask=MASK)
    assert np.all(result.masked[pixel_mask(result.hidden)] == 128)


def test_the_mask_is_the_one_asked_for_and_the_seeds(loaded: Loaded, video: Path) -> None:
    first, again, other = (reconstruct_video(loaded, video, mask=MASK, seed=seed) for seed in (3, 3, 4))
    assert first.hidden.shape == (2, 4, 4)
    assert first.hidden.sum() == 2 * 12
    assert np.array_equal(first.hidden[0], first.hidden[1]), "tubes are constant in time"
    assert np.array_equal(first.hidden, again.hidden)
    assert np.array_equal(first.prediction, again.prediction)
    assert not np.array_equal(first.hidden, other.hidden)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_model_that_predicts_constants_has_one_color_for_each_tubelet_in_the_prediction_row_alone(
    loaded: Loaded, video: Path, value: float
) -> None:
    make_constant(loaded, value)
    result = reconstruct_video(loaded, video, mask=MASK)
    hidden = pixel_mask(result.hidden)
    shown = patchify(torch.from_numpy(result.prediction).permute(0, 3, 1, 2)[None], loaded.model.tubelet)
    shown = shown[0, torch.from_numpy(result.hidden.reshape(-1))].view(24, 128, 3)
    assert torch.equal(shown, shown[:, :1].expand_as(shown)), "one color for each hidden tubelet"
    assert len(np.unique(result.prediction[hidden], axis=0)) <= 24
    assert result.with_true_statistics is not None
    colors = np.unique(result.with_true_statistics[hidden], axis=0)
    assert len(colors) > 10, "true statistics show the original's mean colors though the model predicts a constant"


def test_a_prediction_of_zero_is_the_mean_color_of_the_visible_patches_around(loaded: Loaded, video: Path) -> None:
    make_constant(loaded, 0.0)
    result = reconstruct_video(loaded, video, mask=MASK)
    true = patchify(
        torch.from_numpy(result.original / np.float32(255)).permute(0, 3, 1, 2)[None], loaded.model.tubelet
    )
    tokens = torch.arange(32)[None]
    hidden = torch.from_numpy(result.hidden.reshape(-1))
    known = interpolated_statistics(true, tokens[:, ~hidden], tokens[:, hidden], TokenGrid(2, 4, 4))
    shown = patchify(
        torch.from_numpy(result.prediction / np.float32(255)).permute(0, 3, 1, 2)[None], loaded.model.tubelet
    )
    wanted = known.mean.expand(-1, -1, 128, -1).flatten(2)
    torch.testing.assert_close(shown[:, hidden], wanted, atol=1 / 255, rtol=0)


def test_prediction_row_does_not_depend_on_hidden_pixels(loaded: Loaded, video: Path) -> None:
    pixel_values = clip_pixels(loaded, video)
    visible = some_visible()
    predictions = torch.randn(1, 24, 2 * 8 * 8 * 3, generator=torch.Generator().manual_seed(0))
    versions = compose_versions(loaded, pixel_values, visible, predictions)
    hidden = torch.ones(32, dtype=torch.bool)
    hidden[visible[0]] = False
    mask = torch.from_numpy(pixel_mask(hidden.view(2, 4, 4).numpy()))[None, :, None]
    other = torch.where(
        mask, torch.randn(pixel_values.shape, generator=torch.Generator().manual_seed(1)), pixel_values
    )
    changed = compose_versions(loaded, other, visible, predictions)
    assert np.array_equal(changed.prediction, versions.prediction)
    assert changed.with_true_statistics is not None
    assert versions.with_true_statistics is not None
    assert not np.array_equal(changed.with_true_statistics, versions.with_true_statistics)


def test_perfect_predictions_give_the_original_in_the_row_with_true_statistics(loaded: Loaded, video: Path) -> None:
    pixel_values, visible = clip_pixels(loaded, video), some_visible()
    assert loaded.model.config.norm_pix_loss
    perfect = loaded.model.targets(pixel_values, complement(visible, 32))
    versions = compose_versions(loaded, pixel_values, visible, perfect)
    assert versions.with_true_statistics is not None
    assert np.array_equal(versions.with_true_statistics, versions.original)
    assert not np.array_equal(versions.prediction, versions.original), "brightness and contrast are not predicted"


@pytest.mark.parametrize(("mean", "std"), [(None, None), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
def test_without_pixel_normalisation_there_is_one_row_and_perfect_predictions_give_the_original(
    pretraining_folder: Path, video: Path, mean: list[float] | None, std: list[float] | None
) -> None:
    source = load_pretraining(pretraining_folder, device="cpu")
    model = VideoMAEForPreTraining(source.model.config.replace(norm_pix_loss=False)).eval()
    # Not the processor that the model's pixels are defined by: the predictions must be taken back through both.
    processor = VideoMAEImageProcessor(size=32, crop_size=32, image_mean=mean, image_std=std)
    loaded = LoadedModel(str(pretraining_folder), model, processor, source.clip)
    pixel_values, visible = clip_pixels(loaded, video), some_visible()
    versions = compose_versions(loaded, pixel_values, visible, model.targets(pixel_values, complement(visible, 32)))
    assert versions.with_true_statistics is None
    assert np.array_equal(versions.prediction, versions.original)
    result = reconstruct_video(loaded, video, mask=MASK)
    assert result.with_true_statistics is None
    assert not np.array_equal(result.prediction, result.original)


def test_loss_is_the_models_own(loaded: Loaded, video: Path) -> None:
    result = reconstruct_video(loaded, video, mask=MASK)
    hidden = torch.from_numpy(result.hidden.reshape(1, -1))
    with torch.no_grad():
        expected = loaded.model(clip_pixels(loaded, video), hidden).loss
    assert result.loss == pytest.approx(expected.item(), rel=1e-6)


def test_frames_and_times_are_those_of_the_middle_clip(loaded: Loaded, video: Path) -> None:
    result = reconstruct_video(loaded, video, mask=MASK)
    assert result.frame_indices.tolist() == centre_clip(30, ClipConfig(4, 3)).tolist()
    np.testing.assert_allclose(result.frame_seconds, result.frame_indices / 20.0, atol=1e-6)


def test_strip_shows_each_version_where_it_says(loaded: Loaded, video: Path, tmp_path: Path) -> None:
    result = reconstruct(loaded.source, video, tmp_path / "out.png", mask=MASK, device="cpu")
    with Image.open(tmp_path / "out.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert np.array_equal(pixels, np.asarray(reconstruction_strip(result, title=Path(loaded.source).name)))
    scale = 5  # frames of 32 pixels are enlarged by whole numbers to at least 144
    assert result.with_true_statistics is not None
    tops = []
    for version in (result.original, result.masked, result.with_true_statistics, result.prediction):
        for frame in (version[0], version[2]):
            tops.append(row_of(pixels, frame.repeat(scale, axis=0).repeat(scale, axis=1)))
    assert tops[0::2] == tops[1::2], "the frames of one version stand in one row"
    assert sorted(set(tops)) == tops[0::2], "the versions stand below each other in order"


def row_of(image: np.ndarray, tile: np.ndarray) -> int:
    """Return the row at which a tile stands in an image, whatever the column."""
    height, width = tile.shape[:2]
    matches = np.all(image[: len(image) - height + 1, : image.shape[1] - width + 1] == tile[0, 0], axis=-1)
    for top, left in np.argwhere(matches):
        if np.array_equal(image[top : top + height, left : left + width], tile):
            return int(top)
    raise AssertionError("the tile is not in the image")


def test_strip_takes_eight_frames_of_many_tubelets(loaded: Loaded, video: Path) -> None:
    small = reconstruct_video(loaded, video, mask=MASK)
    many = Reconstruction(
        **{
            **{name: getattr(small, name) for name in ("path", "mask", "seed", "loss")},
            **{
                name: getattr(small, name).repeat(6, axis=0)
                for name in (
                    "original",
                    "masked",
                    "with_true_statistics",
                    "prediction",
                    "hidden",
                    "frame_indices",
                    "frame_seconds",
                )
            },
        }
    )
    width = reconstruction_strip(many).width
    assert width == 2 * 18 + 8 * 160 + 7 * 6


def test_labels_say_which_row_leaks() -> None:
    assert "true mean and std" in TRUE_STATISTICS_LABEL
    assert "leaks" in TRUE_STATISTICS_LABEL
    assert "visible patches" in PREDICTION_LABEL
    assert "nothing hidden" in PREDICTION_LABEL


@pytest.mark.parametrize("name", ["out.jpg", "out", "missing/out.png"])
def test_output_that_cannot_be_a_png_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"output is .* must end with .png|the folder of output .* does not exist"):
        reconstruct(tmp_path / "no model", tmp_path / "no video", tmp_path / name)


def test_failed_write_is_told_and_leaves_nothing(loaded: Loaded, video: Path, tmp_path: Path) -> None:
    result = reconstruct_video(loaded, video, mask=MASK)
    (tmp_path / "out.png").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*out\.png: Is a directory"):
        save_strip(result, tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_model_without_decoder_is_refused(classifier_folder: Path, video: Path) -> None:
    with pytest.raises(WeightsError, match="without a decoder"):
        reconstruct(classifier_folder, video)


def test_mask_that_hides_nothing_is_refused(loaded: Loaded, video: Path) -> None:
    with pytest.raises(ConfigError, match=r"mask\.ratio 0\.01 hides 0 of 16 tokens"):
        reconstruct_video(loaded, video, mask=MaskConfig(ratio=0.01))


def test_folder_that_transformers_wrote_works_and_the_sampling_is_assumed_with_a_warning(
    pretraining_folder: Path, video: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pretraining_folder, folder)
    (folder / "videomae.json").unlink()
    with pytest.warns(UserWarning, match="assuming 4 frames, stride 4"):
        result = reconstruct(folder, video, mask=MASK, device="cpu")
    assert result.frame_indices.tolist() == centre_clip(30, ClipConfig(4, 4, "original")).tolist()


@pytest.mark.parametrize(
    ("recipe", "mask"),
    [
        ({"mask": {"kind": "random", "ratio": 0.6, "decoder_kind": "subset"}}, MaskConfig("random", 0.6)),
        ({"mask": {"kind": "squares"}}, MaskConfig()),
        ({"mask": {"ratio": "most"}}, MaskConfig()),
        ({"mask": 0.9}, MaskConfig()),
        ({}, MaskConfig()),
    ],
)
def test_where_no_mask_is_named_it_is_that_of_the_training(
    recipe: dict[str, object], mask: MaskConfig, loaded: Loaded, video: Path, tmp_path: Path
) -> None:
    record = {"clip": vars(loaded.clip), "training": {"recipe": recipe}}
    loaded.model.save_pretrained(tmp_path, processor=loaded.processor, record=record)
    again = load_pretraining(tmp_path, device="cpu")
    assert again.mask == mask
    assert reconstruct_video(again, video).mask == mask


def test_the_shipped_model_is_shown_with_the_mask_that_it_was_trained_with(video: Path) -> None:
    assert reconstruct_video(load_pretraining("default", device="cpu"), video).mask == MaskConfig("tube", 0.75)
