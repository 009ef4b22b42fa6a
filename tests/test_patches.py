"""The token grid: order, inverses, gathering, masks to indices, normalisation."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from videomae.patches import (
    NORM_EPS,
    TokenGrid,
    TubeletSize,
    complement,
    cut_tubelets,
    denormalize_patches,
    equal_count,
    gather_tokens,
    gather_tubelets,
    interpolated_statistics,
    membership,
    normalize_tubelets,
    patch_statistics,
    patchify,
    split_by_mask,
    token_grid,
    unpatchify,
)

TUBELET = TubeletSize(2, 4, 3)
SHAPE = (2, 6, 3, 8, 9)  # B T C H W
GRID = TokenGrid(3, 2, 3)


@pytest.fixture
def video() -> Tensor:
    """Return a video of which every value is different."""
    return torch.arange(torch.Size(SHAPE).numel(), dtype=torch.float32).view(SHAPE)


def draw_indices(batch: int, count: int, total: int) -> Tensor:
    """Return `[batch, count]` token numbers in no order, another draw for each row."""
    generator = torch.Generator().manual_seed(count)
    return torch.stack([torch.randperm(total, generator=generator)[:count] for _ in range(batch)])


def test_grid_counts_tubelets() -> None:
    grid = token_grid(16, 224, 160, TubeletSize(2, 16, 16))
    assert grid == TokenGrid(8, 14, 10)
    assert (grid.num_tokens, grid.tokens_per_frame) == (1120, 140)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((5, 16, 16), "the video has frames 5, which tubelets of frames 2 do not divide: use a multiple of 2"),
        ((4, 18, 16), "the video has height 18, which tubelets of height 16 do not divide"),
        ((4, 16, 8), "the video has width 8, which tubelets of width 16 do not divide: use a multiple of 16"),
        ((0, 16, 16), "the video has frames 0,"),
    ],
)
def test_sizes_that_tubelets_do_not_divide_are_refused(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_grid(*sizes, TubeletSize(2, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.float64])
def test_unpatchify_is_the_inverse_of_patchify(video: Tensor, dtype: torch.dtype) -> None:
    video = (video % 251).to(dtype)
    patches = patchify(video, TUBELET)
    assert patches.shape == (2, 18, 2 * 4 * 3 * 3)
    assert patches.dtype == dtype
    assert torch.equal(unpatchify(patches, GRID, TUBELET), video)


def test_patchify_is_the_inverse_of_unpatchify() -> None:
    patches = torch.rand(2, GRID.num_tokens, 72)
    assert torch.equal(patchify(unpatchify(patches, GRID, TUBELET), TUBELET), patches)


def test_tokens_are_in_raster_order_and_values_frame_row_column_channel(video: Tensor) -> None:
    patches = patchify(video, TUBELET)
    cut = cut_tubelets(video, TUBELET)
    tokens = list(itertools.product(range(3), range(2), range(3)))
    values = list(itertools.product(range(2), range(4), range(3), range(3)))
    assert patches.shape == (2, len(tokens), len(values))
    for (number, (t, h, w)), (place, (a, p, q, c)) in itertools.product(enumerate(tokens), enumerate(values)):
        pixel = video[1, 2 * t + a, c, 4 * h + p, 3 * w + q]
        assert patches[1, number, place] == pixel
        assert cut[1, number, c, a, p, q] == pixel


LAYOUTS = {
    "contiguous": lambda video: video,
    "frames and channels transposed": lambda video: video.transpose(1, 2).contiguous().transpose(1, 2),
    "channels last": lambda video: video.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "every second frame": lambda video: video.repeat_interleave(2, dim=1)[:, ::2],
    "a crop": lambda video: torch.nn.functional.pad(video, (1, 2, 3, 4))[..., 3:-4, 1:-2],
    "flipped storage": lambda video: video.flip(-1).contiguous().flip(-1),
    "one clip for the batch": lambda video: video[:1].expand(2, -1, -1, -1, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gathering_tubelets_equals_cutting_all_and_picking(video: Tensor, layout: str) -> None:
    video = LAYOUTS[layout](video)
    indices = draw_indices(2, 7, GRID.num_tokens)
    expected = torch.stack([cut[rows] for cut, rows in zip(cut_tubelets(video, TUBELET), indices, strict=True)])
    gathered = gather_tubelets(video, indices, TUBELET)
    assert gathered.shape == (2, 7, 3, 2, 4, 3)
    assert torch.equal(gathered, expected)


def test_gathering_tubelets_passes_gradients_to_the_chosen_pixels_alone(video: Tensor) -> None:
    video.requires_grad_()
    indices = draw_indices(2, 5, GRID.num_tokens)
    gather_tubelets(video, indices, TUBELET).sum().backward()
    touched = patchify(video.grad, TUBELET)
    chosen = membership(indices, GRID.num_tokens)
    assert torch.equal(touched, chosen[..., None].float().expand_as(touched))


@pytest.mark.parametrize("rows", [1, 3])
def test_gathering_tokens_picks_by_number_from_own_or_shared_rows(rows: int) -> None:
    tokens = torch.rand(rows, 10, 4)
    indices = draw_indices(3, 6, 10)
    picked = gather_tokens(tokens, indices)
    for b in range(3):
        assert torch.equal(picked[b], tokens[b % rows][indices[b]])


def test_a_mask_splits_into_visible_and_hidden_numbers_in_raster_order() -> None:
    hidden = torch.tensor([[True, False, True, False, True], [False, False, True, True, True]])
    visible_indices, hidden_indices = split_by_mask(hidden)
    assert visible_indices.tolist() == [[1, 3], [0, 1]]
    assert hidden_indices.tolist() == [[0, 2, 4], [2, 3, 4]]
    assert visible_indices.dtype == hidden_indices.dtype == torch.int64


def test_splitting_equals_boolean_indexing_on_large_masks() -> None:
    hidden = membership(draw_indices(4, 1408, 1568), 1568)
    visible_indices, hidden_indices = split_by_mask(hidden)
    numbers = torch.arange(1568).expand(4, -1)
    assert torch.equal(visible_indices, numbers[~hidden].view(4, 160))
    assert torch.equal(hidden_indices, numbers[hidden].view(4, 1408))


@pytest.mark.parametrize(
    ("counts", "listed"),
    [([3, 4, 3], r"\[3, 4, 3\]"), ([5, 7], r"\[5, 7\]"), ([0, 8], r"\[0, 8\]")],
    ids=["plain", "totals divide evenly", "none and all"],
)
def test_unequal_counts_are_refused_by_number(counts: list[int], listed: str) -> None:
    # 5 + 7 of 2 x 8 tokens would reshape without complaint and mix the tokens of two videos.
    hidden = torch.stack([torch.arange(8) < count for count in counts])
    for function in (split_by_mask, equal_count):
        with pytest.raises(ValueError, match=f"unequal mask counts {listed}: every row must have the same number"):
            function(hidden)


@pytest.mark.parametrize("count", [0, 1, 5, 10])
def test_membership_and_complement_partition_the_tokens(count: int) -> None:
    indices = draw_indices(3, count, 10)
    rest = complement(indices, 10)
    assert rest.shape == (3, 10 - count)
    assert rest.dtype == torch.int64
    for b in range(3):
        assert rest[b].tolist() == sorted(set(range(10)) - set(indices[b].tolist()))
    assert torch.equal(membership(indices, 10), ~membership(rest, 10))
    assert membership(indices, 10).sum(1).tolist() == [count] * 3


def normalize_patches(patches: Tensor, num_channels: int) -> Tensor:
    """Normalize patches `[B, N, P]` with the channel fastest, as targets have it."""
    tubelets = patches.unflatten(-1, (-1, num_channels)).transpose(2, 3).clone()  # [B, N, C, s]
    normalize_tubelets(tubelets, (1.0,) * num_channels)
    return tubelets.transpose(2, 3).flatten(2)


def test_normalisation_is_per_tubelet_and_channel_with_unbiased_deviation() -> None:
    patches = torch.rand(2, 5, 24 * 3, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1]).repeat(24)
    normalized = normalize_patches(patches, 3).view(2, 5, 24, 3)
    for b, n, c in itertools.product(range(2), range(5), range(3)):
        pixels = patches.view(2, 5, 24, 3)[b, n, :, c]
        mean = pixels.sum() / 24
        deviation = ((pixels - mean).square().sum() / 23).sqrt()
        torch.testing.assert_close(normalized[b, n, :, c], (pixels - mean) / (deviation + 1e-6))


def test_a_flat_tubelet_is_normalised_to_zero_not_nan() -> None:
    assert torch.equal(normalize_patches(torch.full((1, 2, 12), 0.5), 3), torch.zeros(1, 2, 12))


def test_the_constant_is_added_to_the_deviation_not_the_variance() -> None:
    pixels = torch.tensor([0.0, 2e-6], dtype=torch.float64)  # deviation sqrt(2) * 1e-6, as small as the constant
    deviation = 2**0.5 * 1e-6
    normalized = normalize_patches(pixels.view(1, 1, 2), 1)
    assert normalized[0, 0, 1].item() == pytest.approx(1e-6 / (deviation + NORM_EPS), rel=1e-9)


@pytest.mark.parametrize("num_channels", [1, 3, 7])
def test_denormalisation_undoes_normalisation(num_channels: int) -> None:
    patches = torch.rand(2, 5, 24 * num_channels)
    statistics = patch_statistics(patches, num_channels)
    assert statistics.mean.shape == statistics.std.shape == (2, 5, 1, num_channels)
    restored = denormalize_patches(normalize_patches(patches, num_channels), statistics)
    torch.testing.assert_close(restored, patches, atol=1e-6, rtol=0)


def test_statistics_between_equal_tubelets_are_theirs() -> None:
    one = torch.rand(1, 1, 96)
    truth, visible, hidden = one.expand(1, 32, 96), torch.arange(0, 32, 2)[None], torch.arange(1, 32, 2)[None]
    found = interpolated_statistics(truth, visible, hidden, TokenGrid(2, 4, 4))
    pixels = one.view(32, 3)
    torch.testing.assert_close(found.mean[0, :, 0], pixels.mean(dim=0).expand(16, 3))
    torch.testing.assert_close(found.std[0, :, 0], pixels.std(dim=0).expand(16, 3))
    assert found.mean.shape == found.std.shape == (1, 16, 1, 3)


def test_interpolated_statistics_follow_the_nearest_visible_tubelets_and_no_hidden_one() -> None:
    grid = TokenGrid(1, 1, 8)
    truth = torch.arange(8.0)[None, :, None].expand(1, 8, 12).clone()  # the mean of a tubelet is its column
    visible, hidden = torch.tensor([[0, 3, 7]]), torch.tensor([[1, 2, 4, 5, 6]])
    mean = interpolated_statistics(truth, visible, hidden, grid).mean[0, :, 0, 0]
    assert ((mean - hidden[0]).abs() < 1.2).all()
    truth[:, hidden[0]] = 99.0
    assert torch.equal(interpolated_statistics(truth, visible, hidden, grid).mean[0, :, 0, 0], mean)
