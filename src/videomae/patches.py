"""The token grid: how a video is cut into tubelets, in which order, and back.

The only file that knows the order of patches and of the values in them.

Alphabet (used in every file of the package): `B` batch, `T C H W` video, `t h w` token grid, `N = t*h*w` tokens,
`V` visible, `M` decoded, `D` encoder width, `E` decoder width, `P` values per tubelet, `K` classes, `S` views.

Tokens are in raster order: time slowest, then rows, then columns. Inside a tubelet the values are ordered
(frame, row, column, channel), channel fastest, for targets and predictions, as in the original pre-training
engine; the embedding's weight keeps the Conv3d order (channel, frame, row, column) of the checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

NORM_EPS = 1e-6  # added to the standard deviation, not the variance: original VideoMAE pre-training engine


@dataclass(frozen=True)
class TubeletSize:
    """Size of one tubelet: frames, then rows and columns of pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class TokenGrid:
    """Size of the token grid: `frames` tubelets in time, `height` rows, `width` columns."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        """N, the number of tokens of one video."""
        return self.frames * self.height * self.width

    @property
    def tokens_per_frame(self) -> int:
        """Number of tokens of one time slice, h * w."""
        return self.height * self.width


def token_grid(num_frames: int, height: int, width: int, tubelet: TubeletSize) -> TokenGrid:
    """Return the token grid of a video.

    Args:
        num_frames: T, frames.
        height: H, pixels.
        width: W, pixels.
        tubelet: Size of one tubelet.

    Returns:
        The grid `(T // frames, H // height, W // width)`.

    Raises:
        ValueError: If the tubelet does not divide the video.
    """
    for name, size, step in (
        ("frames", num_frames, tubelet.frames),
        ("height", height, tubelet.height),
        ("width", width, tubelet.width),
    ):
        if size < step or size % step:
            raise ValueError(
                f"the video has {name} {size}, which tubelets of {name} {step} do not divide: "
                f"use a multiple of {step}"
            )
    return TokenGrid(num_frames // tubelet.frames, height // tubelet.height, width // tubelet.width)


def patchify(video: Tensor, tubelet: TubeletSize) -> Tensor:
    """Cut videos into flattened tubelets.

    Args:
        video: `[B, T, C, H, W]`, any dtype.
        tubelet: Size of one tubelet; it must divide the video.

    Returns:
        `[B, N, P]` with `P = frames * height * width * C`, values ordered (frame, row, column, channel).
    """
    return rearrange(
        video,
        "b (t a) c (h p) (w q) -> b (t h w) (a p q c)",
        a=tubelet.frames,
        p=tubelet.height,
        q=tubelet.width,
    )


def unpatchify(patches: Tensor, grid: TokenGrid, tubelet: TubeletSize) -> Tensor:
    """Put flattened tubelets back into videos; the exact inverse of `patchify`.

    Args:
        patches: `[B, N, P]`, values ordered (frame, row, column, channel).
        grid: The token grid of the video.
        tubelet: Size of one tubelet.

    Returns:
        `[B, T, C, H, W]`.
    """
    return rearrange(
        patches,
        "b (t h w) (a p q c) -> b (t a) c (h p) (w q)",
        t=grid.frames,
        h=grid.height,
        w=grid.width,
        a=tubelet.frames,
        p=tubelet.height,
        q=tubelet.width,
    )


def cut_tubelets(video: Tensor, tubelet: TubeletSize) -> Tensor:
    """Cut videos `[B, T, C, H, W]` into `[B, N, C, frames, height, width]`, the order of Conv3d weights."""
    return rearrange(
        video,
        "b (t a) c (h p) (w q) -> b (t h w) c a p q",
        a=tubelet.frames,
        p=tubelet.height,
        q=tubelet.width,
    )


def gather_tubelets(video: Tensor, indices: Tensor, tubelet: TubeletSize) -> Tensor:
    """Read only the chosen tubelets of a video, without cutting up the rest.

    Args:
        video: `[B, T, C, H, W]`.
        indices: `[B, V]` int64, token indices in raster order of the grid.
        tubelet: Size of one tubelet; it must divide the video.

    Returns:
        `[B, V, C, frames, height, width]`.
    """
    B, T, C, H, W = video.shape
    a, p, q = tubelet.frames, tubelet.height, tubelet.width
    h, w = H // p, W // q
    # Splitting dimensions never copies: the indexing below is what reads memory.
    cut = video.view(B, T // a, a, C, h, p, w, q)
    cut = cut.permute(0, 1, 4, 6, 3, 2, 5, 7)  # [B, t, a, C, h, p, w, q] -> [B, t, h, w, C, a, p, q]
    batch = torch.arange(B, device=video.device)[:, None]  # [B, 1]
    time, position = indices // (h * w), indices % (h * w)
    return cut[batch, time, position // w, position % w]  # [B, V, C, a, p, q]


def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens by number.

    Args:
        tokens: `[B, N, D]` or `[1, N, D]` (shared by the batch).
        indices: `[B, V]` int64.

    Returns:
        `[B, V, D]`.
    """
    if tokens.shape[0] == 1:
        return tokens[0][indices]
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def split_by_mask(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a boolean mask into two index tensors of constant counts.

    Args:
        hidden: `[B, N]` bool, True = hidden from the encoder.

    Returns:
        Token indices of the visible `[B, V]` and of the hidden `[B, N - V]` tokens, int64, in raster order.

    Raises:
        ValueError: If the videos of the batch hide different numbers of tokens.
    """
    num_hidden = traced_count(hidden) if torch.compiler.is_compiling() else equal_count(hidden)
    order = torch.argsort(hidden.to(torch.uint8), dim=1, stable=True)  # visible first, raster order kept
    num_visible = hidden.shape[1] - num_hidden
    return order[:, :num_visible], order[:, num_visible:]


def equal_count(mask: Tensor) -> int:
    """Return the number of True entries that every row of a `[B, N]` bool mask has.

    Raises:
        ValueError: If the rows differ; the message lists the counts.
    """
    counts: list[int] = mask.sum(dim=1).tolist()
    if len(set(counts)) != 1:
        raise ValueError(
            f"the videos of the batch have unequal mask counts {counts}: every row must have the same "
            "number of True entries"
        )
    return counts[0]


# What torch.compiler.assume_constant_result does, which would import the compiler at every start: a traced graph
# calls this function on the mask at hand and keeps the result as a number.
equal_count.__dict__["_dynamo_marked_constant"] = True


def traced_count(mask: Tensor) -> int:
    """Return the count of `equal_count` inside `torch.compile` and `torch.export`, where values are not known.

    A compiled graph keeps the count of its first mask, so that its shapes are fixed; an exported program takes any
    count. Both check every later mask and raise RuntimeError rather than mix the tokens of two videos.
    """
    count: int
    # The flag, not torch.compiler.is_exporting(): torch 2.11 returns True from that inside torch.compile as well.
    if torch.compiler._is_exporting_flag:
        (count,) = mask[:1].sum(dim=1).tolist()  # not int(...): that would fix the number
        torch._check(count >= 0)
        torch._check(count < mask.shape[1])
    else:
        count = equal_count(mask)
    torch._assert_async(
        (mask.sum(dim=1) == count).all(),
        "a mask hides another number of tokens than the one this model was compiled with, or unequal numbers: pass "
        "visible_indices and decoded_indices, whose shapes may change",
    )
    return count


def complement(indices: Tensor, num_tokens: int) -> Tensor:
    """Return the token indices that are not among `indices`.

    Args:
        indices: `[B, V]` int64, no number twice in a row.
        num_tokens: N.

    Returns:
        `[B, N - V]` int64 in raster order. Shapes depend on shapes alone, never on values.
    """
    chosen = membership(indices, num_tokens)
    return torch.argsort(chosen.to(torch.uint8), dim=1, stable=True)[:, : num_tokens - indices.shape[1]]


def membership(indices: Tensor, num_tokens: int) -> Tensor:
    """Return the `[B, N]` bool mask that is True at `indices` `[B, V]`."""
    mask = torch.zeros(indices.shape[0], num_tokens, dtype=torch.bool, device=indices.device)
    return mask.scatter(1, indices, 1)  # not True, which torch.jit.trace cannot write down


@dataclass(frozen=True)
class PatchStatistics:
    """Mean and standard deviation of each tubelet and channel, `[B, N, 1, C]` float32."""

    mean: Tensor
    std: Tensor


def patch_statistics(patches: Tensor, num_channels: int) -> PatchStatistics:
    """Return per-tubelet, per-channel statistics.

    Args:
        patches: `[B, N, P]`, values ordered (frame, row, column, channel).
        num_channels: C.

    Returns:
        Mean and unbiased standard deviation over the pixels of a tubelet.

    Source: VideoMAE (Tong et al. 2022) pre-training engine; unlike image MAE, which pools the channels.
    """
    pixels = rearrange(patches, "b n (s c) -> b n s c", c=num_channels)
    variance, mean = torch.var_mean(pixels, dim=2, keepdim=True)  # unbiased
    return PatchStatistics(mean, variance.sqrt())


def normalize_tubelets(tubelets: Tensor, stds: Sequence[float]) -> None:
    """Normalize each tubelet and channel in place, as if it still held pixels: `(x - mean) / (std + 1e-6)`.

    What is given are pixels that were normalized with one mean and one std for each channel. Subtracting the mean of
    a tubelet and dividing by its std takes both out again, all but what they do to the epsilon; so they are never
    applied.

    Args:
        tubelets: `[B, M, C, s]` float32, `(pixels - mean) / std` of each channel.
        stds: The std of each channel; 1 for pixels themselves.

    Source: VideoMAE (Tong et al. 2022) pre-training engine; unlike image MAE, which pools the channels.
    """
    tubelets -= tubelets.mean(dim=-1, keepdim=True)
    spread = torch.linalg.vector_norm(tubelets, dim=-1, keepdim=True) / (tubelets.shape[-1] - 1) ** 0.5  # unbiased
    for channel, std in enumerate(stds):
        spread[:, :, channel] += NORM_EPS / std
    tubelets /= spread


def denormalize_patches(normalized: Tensor, statistics: PatchStatistics) -> Tensor:
    """Undo the normalization of patches with the given statistics; `[B, N, P]` in and out."""
    num_channels = statistics.mean.shape[-1]
    pixels = rearrange(normalized, "b n (s c) -> b n s c", c=num_channels)
    return rearrange(pixels * (statistics.std + NORM_EPS) + statistics.mean, "b n s c -> b n (s c)")


def token_places(grid: TokenGrid, device: torch.device | str = "cpu") -> Tensor:
    """Return time, row and column of every token, `[N, 3]` float32."""
    sides = (torch.arange(n, device=device) for n in (grid.frames, grid.height, grid.width))
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).view(-1, 3).float()


def interpolated_statistics(
    truth: Tensor, visible: Tensor, hidden: Tensor, grid: TokenGrid, num_channels: int = 3
) -> PatchStatistics:
    """Return statistics of hidden tubelets as Gaussian averages, one token wide, of the visible ones'.

    Args:
        truth: `[B, N, P]` patches.
        visible: `[B, V]` int64.
        hidden: `[B, M]` int64.
        grid: Token grid.
        num_channels: C.

    Returns:
        Mean and std `[B, M, 1, C]`; the std is that inside a tubelet, by which a normalized prediction is multiplied.
    """
    places = token_places(grid, truth.device)
    distance = torch.cdist(places[hidden], places[visible])  # [B, M, V]
    weights = torch.softmax(-0.5 * distance**2, dim=-1)
    known = patch_statistics(gather_tokens(truth, visible), num_channels)
    mean, std = (weights @ one[:, :, 0] for one in (known.mean, known.std))  # [B, M, C]
    return PatchStatistics(mean[:, :, None], std[:, :, None])
