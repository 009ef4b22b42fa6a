"""Which tokens are merged, how many, and what a model whose tokens are merged says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tiny_models import make_model, random_video
from videomae.cli import main
from videomae.compat.pipeline import pipeline
from videomae.errors import ConfigError
from videomae.inference.flops import classification_flops, merging_flops, tokens_left
from videomae.inference.int8 import multiplies_exactly
from videomae.inference.predictor import Predictor
from videomae.inference.token_merging import MergingClassifier, merge, proportional_attention
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.patches import TokenGrid


def test_exactly_the_planted_pairs_that_are_alike_are_merged_and_weighed_by_their_sizes() -> None:
    keys = torch.eye(6)[None].clone()  # [1, 6, 6], no two alike
    keys[0, 3], keys[0, 5] = 2.0 * keys[0, 4], keys[0, 0] + 0.1 * keys[0, 1]  # 3 is as 4, 5 almost as 0
    tokens = torch.arange(12.0).view(1, 6, 2)
    sizes = torch.tensor([[1.0, 1.0, 1.0, 3.0, 1.0, 1.0]])
    merged, counts = merge(tokens, sizes, keys, removed=1)
    assert merged.tolist() == [[[0, 1], [4, 5], [(3 * 6 + 8) / 4, (3 * 7 + 9) / 4], [10, 11], [2, 3]]]
    assert counts.tolist() == [[1, 1, 4, 1, 1]]
    merged, counts = merge(tokens, sizes, keys, removed=2)
    assert merged.tolist() == [[[5, 6], [4, 5], [6.5, 7.5], [2, 3]]]
    assert counts.tolist() == [[2, 1, 4, 1]]
    merged, counts = merge(tokens, sizes, keys, removed=2, keeps_first=True)
    assert merged[0, 0].tolist() == [0, 1]
    assert counts[0, 0] == 1


def test_merging_keeps_the_mean_of_all_tokens_and_no_clip_changes_another() -> None:
    tokens, keys = torch.randn(2, 20, 8), torch.randn(2, 20, 4)
    sizes = torch.randint(1, 5, (2, 20)).float()
    merged, counts = merge(tokens, sizes, keys, removed=7)
    assert merged.shape == (2, 13, 8)
    assert counts.sum(dim=1).tolist() == sizes.sum(dim=1).tolist()
    torch.testing.assert_close((merged * counts[..., None]).sum(dim=1), (tokens * sizes[..., None]).sum(dim=1))
    alone = merge(tokens[1:], sizes[1:], keys[1:], removed=7)
    torch.testing.assert_close(alone, (merged[1:], counts[1:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_counts_in_attention_as_often_as_tokens_are_in_it(dtype: torch.dtype) -> None:
    query, key, value = (torch.randn(2, 3, 10, 16).to(dtype) for _ in range(3))
    sizes = torch.tensor([[3, 1, 2, 1, 1, 1, 1, 1, 1, 8]] * 2)
    repeated = (one.repeat_interleave(sizes[0], dim=2) for one in (key, value))
    expected = F.scaled_dot_product_attention(query.float(), *(one.float() for one in repeated))
    with torch.no_grad():
        found = proportional_attention(query, key, value, sizes.float())
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("speed", [1.0, 1.1, 1.35, 2.0, 3.0])
@pytest.mark.parametrize("size", ["small", "large"])
def test_as_few_tokens_are_merged_as_leave_that_fraction_of_the_operations(speed: float, size: str) -> None:
    config = VideoMAEConfig.preset(size)
    with torch.device("meta"):
        merging = MergingClassifier(VideoMAEForVideoClassification(config), speed)
    removed = merging.merged(native_grid(config))
    whole, fewer, one_less = (
        merging_flops(config, tokens=1568, removed=one).forward for one in (0, removed, max(removed - 1, 0))
    )
    assert whole == classification_flops(config).forward
    assert fewer <= whole / speed
    assert removed == 0 or whole / speed < one_less
    assert merging.fewer_operations(native_grid(config)) == whole / fewer


def test_the_operations_are_those_that_are_done_but_for_what_finds_the_tokens() -> None:
    config = VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=8, hidden_size=128, num_attention_heads=2, num_hidden_layers=4
    )
    model = VideoMAEForVideoClassification(config).eval()
    merging = MergingClassifier(model, 1.5)
    expected = merging_flops(config, tokens=64, removed=merging.merged(TokenGrid(4, 4, 4))).forward
    # Torch counts no operations of its fused attention on a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        merging(random_video(config, batch=1))
    assert expected <= counter.get_total_flops() < 1.03 * expected


@pytest.mark.parametrize("speed", [0.99, -1.0, float("nan"), float("inf")])
def test_a_speed_below_one_or_no_number_is_refused(speed: float) -> None:
    with pytest.raises(ConfigError, match=rf"speed is {speed:g}; it is how many times fewer .* use 1 for all of"):
        MergingClassifier(make_model(VideoMAEForVideoClassification), speed)


def test_a_speed_that_merging_cannot_reach_is_refused_with_the_largest_that_it_can() -> None:
    model = make_model(VideoMAEForVideoClassification)
    with pytest.raises(ConfigError, match=r"speed is 20, and merging all that can be merged of the 32 tok") as error:
        MergingClassifier(model, 20.0)
    most = float(str(error.value).split("use at most ")[1].split()[0])
    assert MergingClassifier(model, most).merged(TokenGrid(2, 4, 4)) == 16
    with pytest.raises(ConfigError, match="use at most"):
        MergingClassifier(model, most + 0.02)


def test_a_block_that_was_replaced_is_named() -> None:
    model = make_model(VideoMAEForVideoClassification)
    model.videomae.encoder.layer[1] = torch.nn.Identity()
    with pytest.raises(ConfigError, match=r"speed is 1\.1, and block 1 of the model is a Identity: .* use speed 1"):
        MergingClassifier(model, 1.1)


@pytest.mark.parametrize(
    "settings", [{}, {"use_cls_token": True}, {"use_mean_pooling": False}, {"init_values": 0.1}, {"num_frames": 12}]
)
@pytest.mark.filterwarnings("ignore:use_mean_pooling is False")
def test_where_nothing_is_merged_the_outputs_are_the_models(settings: dict[str, bool]) -> None:
    model = make_model(VideoMAEForVideoClassification, **settings).eval()
    video = random_video(model.config)
    merging = MergingClassifier(model, 1.0)
    with torch.no_grad():
        torch.testing.assert_close(merging(video).logits, model(video).logits)
        merged = MergingClassifier(model, 1.5)(video).logits
    assert not torch.allclose(merged, model(video).logits, atol=1e-4)


def test_tokens_that_are_alike_change_nothing_where_they_are_merged() -> None:
    """Of a clip without positions whose tubelets come in equal pairs, a first block merges these alone."""
    model = make_model(VideoMAEForVideoClassification, num_hidden_layers=1).eval()
    model.videomae.embeddings.position_embeddings.zero_()
    video = random_video(model.config)
    tubelets = video.unfold(-1, 4, 4)  # the right one of each two columns of tubelets shows what the left one does
    video = torch.cat([tubelets[..., 2 * (column // 2), :] for column in range(4)], dim=-1)
    merging = MergingClassifier(model, 1.1)
    assert 0 < merging.merged(TokenGrid(2, 4, 4)) <= 16
    with torch.no_grad():
        torch.testing.assert_close(merging(video).logits, model(video).logits)


def test_a_predictor_at_speed_one_is_the_same_to_the_bit_and_at_another_one_what_merging_gives(
    classifier_folder: Path, video: Path
) -> None:
    plain = Predictor(classifier_folder, device="cpu")
    same, fast = (Predictor(classifier_folder, device="cpu", speed=speed) for speed in (1.0, 1.2))
    expected = plain.view_logits(video, num_views=3).logits
    assert same.merging is None
    assert torch.equal(same.view_logits(video, num_views=3).logits, expected)
    assert not torch.allclose(fast.view_logits(video, num_views=3).logits, expected, atol=1e-4)
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 4, 3, 32, 32), dtype=np.uint8))
    pixels = fast.processor(list(clips), return_tensors="pt", input_data_format="channels_first").pixel_values
    with torch.inference_mode():
        by_hand = MergingClassifier(fast.model, 1.2)(pixels).logits
    torch.testing.assert_close(fast.clip_logits(clips), by_hand.double(), atol=1e-5, rtol=1e-5)


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
    exact = Predictor(classifier_folder, device="cpu", speed=1.2).predict(video, num_views=3)
    fast = Predictor(classifier_folder, device="cpu", speed=1.2, precision=precision)  # type: ignore[arg-type]
    found = fast.predict(video, num_views=3)
    assert found.labels == exact.labels
    np.testing.assert_allclose(found.probabilities, exact.probabilities, atol=0.05)


def test_the_pipeline_takes_a_speed(classifier_folder: Path, video: Path) -> None:
    fast = pipeline("video-classification", str(classifier_folder), device="cpu", speed=1.2)
    scores = {one["label"]: one["score"] for one in fast(str(video))}
    expected = Predictor(classifier_folder, device="cpu", speed=1.2).predict(video)
    assert scores == pytest.approx(dict(zip(expected.labels, expected.probabilities, strict=True)))


def test_predict_tells_what_it_merges_and_refuses_what_it_cannot(
    classifier_folder: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(classifier_folder), str(video), "--device", "cpu", "--precision", "fp32"]
    assert main([*command, "--speed", "1.2"]) == 0
    told = capsys.readouterr().err
    merged = MergingClassifier(Predictor(classifier_folder, device="cpu").model, 1.2).merged(TokenGrid(2, 4, 4))
    left = tokens_left(32, removed=merged, depth=2)
    assert f"speed 1.2: {merged} of 32 tokens merged in every block, {left} left, 1.2" in told
    assert "videomae evaluate --speed measures" in told
    assert main(command) == 0
    assert "merged" not in capsys.readouterr().err
    for speed, error in (("0.5", "speed is 0.5; it is how many times fewer"), ("20", "use at most")):
        assert main([*command, "--speed", speed]) == 2
        assert error in capsys.readouterr().err
