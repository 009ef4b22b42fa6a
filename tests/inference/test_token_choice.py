"""Which tokens are kept, how many, and what a model that computes these alone says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny_models import make_model, random_video, tiny_config
from videomae.cli import main
from videomae.compat.pipeline import pipeline
from videomae.errors import ConfigError
from videomae.inference.flops import classification_flops
from videomae.inference.int8 import multiplies_exactly
from videomae.inference.predictor import Predictor
from videomae.inference.token_choice import TokenChoice, keep_changed
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.patches import TokenGrid, TubeletSize

TUBELET = TubeletSize(2, 4, 4)


def still_clip(changes: dict[tuple[int, int], float], *, seed: int = 0) -> Tensor:
    """Return `[1, 8, 3, 8, 8]` pixels, 4 x 2 x 2 tubelets, that do not change but by so much from tubelets on.

    Args:
        changes: By (time, place) of a tubelet, what its pixels and those after it at its place have more.
        seed: Of the still picture.
    """
    clip = torch.randn(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).repeat(1, 8, 1, 1, 1)
    for (time, place), change in changes.items():
        row, column = divmod(place, 2)
        clip[:, 2 * time :, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += change
    return clip


def test_exactly_the_tubelets_that_change_are_kept_and_stand_for_the_still_ones_after_them() -> None:
    clips = torch.cat((still_clip({(1, 2): 0.1, (3, 2): 0.1}), still_clip({(2, 0): 0.1, (2, 3): -0.2}, seed=1)))
    kept = keep_changed(clips, TUBELET, num_kept=6)
    assert kept.indices.tolist() == [[0, 1, 2, 3, 6, 14], [0, 1, 2, 3, 8, 11]]
    assert kept.run_lengths.tolist() == [[4, 4, 1, 4, 2, 1], [2, 4, 4, 2, 2, 2]]


def test_of_more_changes_than_are_kept_the_largest_are() -> None:
    clip = still_clip({(1, 0): 0.1, (1, 1): 0.4, (2, 2): -0.3, (3, 3): 0.2})
    assert keep_changed(clip, TUBELET, num_kept=6).indices.tolist() == [[0, 1, 2, 3, 5, 10]]


def test_all_tokens_kept_stand_for_themselves() -> None:
    kept = keep_changed(still_clip({}), TUBELET, num_kept=16)
    assert kept.indices.tolist() == [list(range(16))]
    assert kept.run_lengths.tolist() == [[1] * 16]


@pytest.mark.parametrize("speed", [1.0, 1.1, 1.35, 2.0, 3.0, 7.0])
@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_as_many_tokens_are_kept_as_have_that_fraction_of_the_operations(speed: float, size: str) -> None:
    config = VideoMAEConfig.preset(size)
    choice, grid = TokenChoice(config, speed), native_grid(config)
    kept = choice.num_kept(grid)
    whole, fewer, one_more = (classification_flops(config, tokens=n).forward for n in (1568, kept, kept + 1))
    assert whole == classification_flops(config).forward
    assert fewer <= whole / speed < one_more
    assert choice.fewer_operations(grid) == whole / fewer


@pytest.mark.parametrize("speed", [0.99, -1.0, float("nan"), float("inf")])
def test_a_speed_below_one_or_no_number_is_refused(speed: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"speed is {speed:g}; it is how many times fewer .* use 1 for all of them"
    ):
        TokenChoice(tiny_config(), speed)


def test_a_speed_that_leaves_places_without_a_token_is_refused_with_the_largest_that_does_not() -> None:
    with pytest.raises(
        ConfigError, match=r"speed is 9, which leaves \d+ tokens of a clip for its 16 places"
    ) as error:
        TokenChoice(tiny_config(), 9.0)
    most = float(str(error.value).split("use at most ")[1].split()[0])
    choice = TokenChoice(tiny_config(), most)
    assert choice.num_kept(native_grid(tiny_config())) == 16
    with pytest.raises(ConfigError, match="use at most"):
        TokenChoice(tiny_config(), most + 0.02)


def test_a_longer_clip_than_the_models_own_keeps_as_many_tokens_as_its_own_operations_say() -> None:
    choice = TokenChoice(tiny_config(), 1.5)
    longer = random_video(tiny_config(num_frames=12), batch=1)
    grid = TokenGrid(6, 4, 4)
    assert choice.grid_of(longer) == grid
    assert choice.options(longer)["visible_indices"].shape == (1, choice.num_kept(grid))
    assert choice.num_kept(grid) > choice.num_kept(native_grid(tiny_config()))


def test_at_speed_one_the_model_is_called_as_without_a_choice() -> None:
    assert TokenChoice(tiny_config()).options(random_video(tiny_config())) == {}


@pytest.mark.parametrize("settings", [{}, {"use_cls_token": True}, {"use_mean_pooling": False}])
@pytest.mark.filterwarnings("ignore:use_mean_pooling is False")
def test_all_tokens_by_their_indices_give_what_the_clip_gives(settings: dict[str, bool]) -> None:
    model = make_model(VideoMAEForVideoClassification, **settings).eval()
    video = random_video(model.config)
    kept = keep_changed(video, model.videomae.embeddings.tubelet, num_kept=32)
    found = model(video, visible_indices=kept.indices, run_lengths=kept.run_lengths).logits
    torch.testing.assert_close(found, model(video).logits)


def test_a_token_counts_in_the_mean_as_often_as_its_run_is_long() -> None:
    model = make_model(VideoMAEForVideoClassification).eval()
    tokens = torch.randn(2, 3, model.config.hidden_size)
    runs = torch.tensor([[1, 2, 3], [4, 1, 1]])
    repeated = torch.stack([one.repeat_interleave(run, dim=0) for one, run in zip(tokens, runs, strict=True)])
    torch.testing.assert_close(model.features(tokens, runs), model.features(repeated))


def test_a_predictor_at_speed_one_gives_the_same_to_the_bit_and_at_another_what_its_tokens_give(
    classifier_folder: Path, video: Path
) -> None:
    plain = Predictor(classifier_folder, device="cpu")
    same, fast = (Predictor(classifier_folder, device="cpu", speed=speed) for speed in (1.0, 1.5))
    expected = plain.view_logits(video, num_views=3).logits
    assert torch.equal(same.view_logits(video, num_views=3).logits, expected)
    found = fast.view_logits(video, num_views=3).logits
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 4, 3, 32, 32), dtype=np.uint8))
    pixels = fast.processor(list(clips), return_tensors="pt", input_data_format="channels_first").pixel_values
    kept = keep_changed(pixels, TubeletSize(2, 8, 8), num_kept=fast.choice.num_kept(TokenGrid(2, 4, 4)))
    assert 16 < kept.indices.shape[1] < 32
    with torch.inference_mode():
        by_hand = fast.model(pixels, visible_indices=kept.indices, run_lengths=kept.run_lengths).logits
    torch.testing.assert_close(fast.clip_logits(clips), by_hand.double())
    assert not torch.allclose(found, expected, atol=1e-4), "nothing was left out"


@pytest.mark.parametrize(
    "precision",
    [
        "bf16",
        pytest.param("int8", marks=pytest.mark.skipif(not multiplies_exactly(), reason="8-bit products overflow")),
    ],
)
def test_a_speed_goes_with_every_precision_and_with_several_views(
    classifier_folder: Path, video: Path, precision: str
) -> None:
    exact = Predictor(classifier_folder, device="cpu", speed=1.5).predict(video, num_views=3)
    found = Predictor(classifier_folder, device="cpu", speed=1.5, precision=precision).predict(video, num_views=3)  # type: ignore[arg-type]
    assert found.labels == exact.labels
    np.testing.assert_allclose(found.probabilities, exact.probabilities, atol=0.05)


def test_the_pipeline_takes_a_speed(classifier_folder: Path, video: Path) -> None:
    fast = pipeline("video-classification", str(classifier_folder), device="cpu", speed=1.5)
    scores = {one["label"]: one["score"] for one in fast(str(video))}
    expected = Predictor(classifier_folder, device="cpu", speed=1.5).predict(video)
    assert scores == pytest.approx(dict(zip(expected.labels, expected.probabilities, strict=True)))


def test_predict_tells_what_it_leaves_out_and_refuses_what_it_cannot(
    classifier_folder: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(classifier_folder), str(video), "--device", "cpu", "--precision", "fp32"]
    assert main([*command, "--speed", "1.5"]) == 0
    told = capsys.readouterr().err
    kept = TokenChoice(Predictor(classifier_folder, device="cpu").model.config, 1.5).num_kept(TokenGrid(2, 4, 4))
    assert f"speed 1.5: {kept} of 32 tokens of a clip, 1.5" in told
    assert "videomae evaluate --speed measures" in told
    assert main(command) == 0
    assert "tokens of a clip" not in capsys.readouterr().err
    for speed, error in (("0.5", "speed is 0.5; it is how many times fewer"), ("20", "for its 16 places")):
        assert main([*command, "--speed", speed]) == 2
        assert error in capsys.readouterr().err
