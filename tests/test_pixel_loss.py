import pytest
import torch

from videomae.patches import TubeletSize, gather_tubelets
from videomae.pixel_loss import pixel_loss, pixel_targets, reconstruction_loss

SIZE = TubeletSize(2, 4, 4)
DECODED = torch.tensor([[0, 3, 7], [5, 6, 1]])


@pytest.mark.parametrize("normalized", [True, False])
def test_the_loss_is_that_of_the_targets_and_leaves_the_video_as_it_is(normalized: bool) -> None:
    video, logits = torch.rand(2, 4, 3, 8, 8), torch.randn(2, 3, 96)
    before, weights = video.clone(), torch.tensor([[1, 0, 1], [1, 1, 1]])
    targets = pixel_targets(video, DECODED, SIZE, normalized=normalized)
    loss = pixel_loss(logits, video, DECODED, weights, SIZE, normalized=normalized)
    assert torch.equal(loss, reconstruction_loss(logits, targets, weights))
    assert torch.equal(video, before)


def test_targets_of_grey_videos_are_the_pixels_themselves() -> None:
    video = torch.rand(2, 4, 1, 8, 8)
    targets = pixel_targets(video, DECODED, SIZE, normalized=False)
    assert torch.equal(targets, gather_tubelets(video, DECODED, SIZE).flatten(2))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_reconstruction_loss_is_a_weighted_mean_in_float32(dtype: torch.dtype) -> None:
    logits, targets = torch.randn(2, 3, 4, dtype=torch.bfloat16), torch.randn(2, 3, 4)
    weights = torch.tensor([[1, 0, 1], [0, 0, 1]]).to(dtype)
    squared = (logits.float() - targets).square().mean(-1)
    expected = (squared[0, 0] + squared[0, 2] + squared[1, 2]) / 3
    loss = reconstruction_loss(logits, targets, weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    everything = reconstruction_loss(logits, targets, torch.ones_like(weights))
    torch.testing.assert_close(everything, reconstruction_loss(logits, targets))
