"""Which tokens the encoder sees and which the decoder predicts: pure functions of grid, ratio and generator.

Every function returns integer index tensors with counts that depend on sizes alone, so that a training step has
static shapes and never waits for the device. Models take the indices; none imports this file.

`MaskConfig` is read for the command's `--help`, which must not wait for torch: torch is imported inside the
functions, and annotations are not postponed, because resolving them would import it too.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from videomae.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videomae.patches import TokenGrid

MaskKind = Literal["tube", "random", "frame"]
DecoderKind = Literal["all", "running_cell", "subset"]
MASK_KINDS: tuple[str, ...] = get_args(MaskKind)
DECODER_KINDS: tuple[str, ...] = get_args(DecoderKind)
CELL = 2  # side of a running cell in tokens: VideoMAE V2's masking generator


class MaskIndices(NamedTuple):
    """Token indices in raster order, int64: what the encoder sees and what the decoder predicts."""

    visible: "Tensor"
    """`[B, V]`."""
    decoded: "Tensor"
    """`[B, M]`. With decoder masking it may contain visible tokens too; those carry no loss."""


@dataclass(frozen=True)
class MaskConfig:
    """How tokens are hidden in pre-training."""

    kind: MaskKind = "tube"
    """tube: the same spatial positions in every frame; random: any tokens; frame: whole time slices."""
    ratio: float = 0.9
    """Masking ratio: fraction of tokens hidden from the encoder, in (0, 1)."""
    decoder_kind: DecoderKind = "all"
    """all: predict every hidden token; running_cell: VideoMAE V2's decoder masking; subset: predict a random subset
    of the hidden tokens."""
    decoder_ratio: float = 0.5
    """Fraction not decoded: of all tokens with running_cell (0.25, 0.5 or 0.75), of the hidden ones with subset."""

    def __post_init__(self) -> None:
        """Check the choices and the ranges."""
        for name, choice, choices in (
            ("kind", self.kind, MASK_KINDS),
            ("decoder_kind", self.decoder_kind, DECODER_KINDS),
        ):
            if choice not in choices:
                raise ConfigError(f"mask.{name} is {choice!r}: choose one of {', '.join(choices)}")
        for name, value in (("ratio", self.ratio), ("decoder_ratio", self.decoder_ratio)):
            if not 0.0 < value < 1.0:
                hint = f": did you mean {value / 100:g}?" if 1.0 < value < 100.0 else ""
                raise ConfigError(f"mask.{name} is {value:g}; it is a fraction in (0, 1){hint}")


def draw_masks(
    config: MaskConfig,
    grid: "TokenGrid",
    *,
    batch: int,
    generator: "torch.Generator",
) -> MaskIndices:
    """Draw the masks of one batch as the config says.

    Args:
        config: Kind and ratio for encoder and decoder.
        grid: Token grid of the videos.
        batch: B.
        generator: Source of all randomness; the result lives on its device.

    Returns:
        Index tensors `[B, V]` and `[B, M]`.
    """
    match config.kind:
        case "tube":
            masks = tube_masks(grid, config.ratio, batch=batch, generator=generator)
        case "random":
            masks = random_masks(grid, config.ratio, batch=batch, generator=generator)
        case "frame":
            masks = frame_masks(grid, config.ratio, batch=batch, generator=generator)
    if config.decoder_kind == "running_cell":
        decoded = draw_running_cells(grid, config.decoder_ratio, batch=batch, generator=generator)
        return MaskIndices(masks.visible, decoded)
    if config.decoder_kind == "subset":
        M = masks.decoded.shape[1]
        kept = _random_subset(M, max(1, round((1.0 - config.decoder_ratio) * M)), batch=batch, generator=generator)
        return MaskIndices(masks.visible, masks.decoded.gather(1, kept))
    return masks


def tube_masks(grid: "TokenGrid", ratio: float, *, batch: int, generator: "torch.Generator") -> MaskIndices:
    """Hide the same `int(ratio * h * w)` spatial positions in every time slice.

    Source: VideoMAE (Tong et al. 2022), section 3.2; counts as in the authors' generator: 0.9 hides 176 of 196.
    """
    import torch

    from videomae.patches import complement

    num_hidden = hidden_count(grid.tokens_per_frame, ratio)
    positions = _random_subset(
        grid.tokens_per_frame, grid.tokens_per_frame - num_hidden, batch=batch, generator=generator
    )  # [B, v]
    starts = torch.arange(grid.frames, device=positions.device) * grid.tokens_per_frame  # [t]
    visible = (starts[None, :, None] + positions[:, None, :]).flatten(1)  # [B, t, v] -> [B, V]
    return MaskIndices(visible, complement(visible, grid.num_tokens))


def random_masks(grid: "TokenGrid", ratio: float, *, batch: int, generator: "torch.Generator") -> MaskIndices:
    """Hide `int(ratio * N)` tokens anywhere in space and time."""
    from videomae.patches import complement

    num_hidden = hidden_count(grid.num_tokens, ratio)
    visible = _random_subset(grid.num_tokens, grid.num_tokens - num_hidden, batch=batch, generator=generator)
    return MaskIndices(visible, complement(visible, grid.num_tokens))


def frame_masks(grid: "TokenGrid", ratio: float, *, batch: int, generator: "torch.Generator") -> MaskIndices:
    """Hide `int(ratio * t)` whole time slices."""
    import torch

    from videomae.patches import complement

    num_hidden = hidden_count(grid.frames, ratio)
    slices = _random_subset(grid.frames, grid.frames - num_hidden, batch=batch, generator=generator)  # [B, v]
    positions = torch.arange(grid.tokens_per_frame, device=slices.device)  # [h * w]
    visible = (slices[:, :, None] * grid.tokens_per_frame + positions).flatten(1)  # [B, v, hw] -> [B, V]
    return MaskIndices(visible, complement(visible, grid.num_tokens))


def draw_running_cells(grid: "TokenGrid", ratio: float, *, batch: int, generator: "torch.Generator") -> "Tensor":
    """Draw one of the four running-cell phases for each video; returns decoded token indices `[B, M]`.

    M is constant for the four phases only where every phase leaves the same number undecoded, which holds for
    every grid with even height and width.
    """
    import torch

    from videomae.patches import split_by_mask

    phases = torch.randint(4, (batch,), generator=generator, device=generator.device)
    decoded, _ = split_by_mask(running_cell_masks(grid, ratio))  # [4, M]
    return decoded.to(generator.device)[phases]


def running_cell_masks(grid: "TokenGrid", ratio: float) -> "Tensor":
    """Return the four phase-shifted running-cell masks.

    A 2x2 cell holds a queue of `m = int(4 * ratio)` ones and `4 - m` zeros, shifted by one position from slice to
    slice, so that every position is decoded in `4 - m` of any 4 consecutive slices.

    Args:
        grid: Token grid; height and width must be even.
        ratio: Fraction left undecoded, with `0 < int(4 * ratio) < 4`.

    Returns:
        `[4, N]` bool on the CPU, True = not decoded; row `k` is start phase `k`.

    Raises:
        ConfigError: If the grid is odd or the ratio leaves nothing or everything.

    Source: VideoMAE V2 (Wang et al. 2023), section 3.2.
    """
    import torch

    num_ones = int(4 * ratio)
    if not 0 < num_ones < 4:
        raise ConfigError(f"mask.decoder_ratio is {ratio:g}; running cells hold 4 tokens: use 0.25, 0.5 or 0.75")
    if grid.height % CELL or grid.width % CELL:
        raise ConfigError(
            f"running-cell masking needs an even token grid, got {grid.height}x{grid.width}: change the image "
            "size or use mask.decoder_kind all"
        )
    queue = torch.tensor([True] * num_ones + [False] * (4 - num_ones))
    phase = torch.arange(4)[:, None, None]
    time = torch.arange(grid.frames)[None, :, None]
    cells = queue[(torch.arange(4) + phase + time + 1) % 4].view(4, grid.frames, CELL, CELL)
    return cells.repeat(1, 1, grid.height // CELL, grid.width // CELL).flatten(1)  # [4, N]


def hidden_count(total: int, ratio: float) -> int:
    """Return `int(ratio * total)`, the number of hidden tokens.

    Raises:
        ConfigError: If that hides nothing or everything.
    """
    count = int(ratio * total)
    if not 0 < count < total:
        raise ConfigError(
            f"mask.ratio {ratio:g} hides {count} of {total} tokens: at least one must be hidden and one visible"
        )
    return count


def _random_subset(total: int, count: int, *, batch: int, generator: "torch.Generator") -> "Tensor":
    """Choose `count` of `total` numbers for each row, ascending: `[B, count]` int64."""
    import torch

    noise = torch.rand(batch, total, generator=generator, device=generator.device)
    return noise.argsort(dim=1)[:, :count].sort(dim=1).values
