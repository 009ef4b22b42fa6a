"""Masks: published counts, structure, chance, and agreement with the original running cells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from videomae.errors import ConfigError
from videomae.masking import (
    MaskConfig,
    draw_masks,
    draw_running_cells,
    frame_masks,
    hidden_count,
    random_masks,
    running_cell_masks,
    tube_masks,
)
from videomae.patches import TokenGrid, complement, membership

GOLDEN = Path(__file__).parent / "golden" / "v2_running_cell_masks.safetensors"
BASE = TokenGrid(8, 14, 14)
GIANT = TokenGrid(8, 16, 16)
SMALL = TokenGrid(4, 4, 6)
KINDS = ("tube", "random", "frame")


def seeded(seed: int = 0) -> torch.Generator:
    """Return a fresh generator."""
    return torch.Generator().manual_seed(seed)


def shown(visible: Tensor, grid: TokenGrid) -> Tensor:
    """Return what is visible as `[B, t, h * w]` bool."""
    return membership(visible, grid.num_tokens).view(-1, grid.frames, grid.tokens_per_frame)


@pytest.mark.parametrize(
    ("grid", "ratio", "hidden_per_slice", "visible_per_slice", "hidden", "visible"),
    [
        (BASE, 0.75, 147, 49, 1176, 392),
        (BASE, 0.9, 176, 20, 1408, 160),
        (BASE, 0.95, 186, 10, 1488, 80),
        (GIANT, 0.9, 230, 26, 1840, 208),
    ],
)
def test_tube_counts_are_the_published_ones(
    grid: TokenGrid, ratio: float, hidden_per_slice: int, visible_per_slice: int, hidden: int, visible: int
) -> None:
    masks = tube_masks(grid, ratio, batch=3, generator=seeded())
    assert (masks.visible.shape, masks.decoded.shape) == ((3, visible), (3, hidden))
    per_slice = shown(masks.visible, grid).sum(-1)
    assert torch.equal(per_slice, torch.full((3, 8), visible_per_slice))
    assert hidden_count(grid.tokens_per_frame, ratio) == hidden_per_slice


def test_tube_mask_is_constant_over_time() -> None:
    slices = shown(tube_masks(BASE, 0.9, batch=4, generator=seeded()).visible, BASE)
    assert torch.equal(slices, slices[:, :1].expand_as(slices))


def test_random_mask_hides_the_ratio_and_differs_from_slice_to_slice() -> None:
    masks = random_masks(BASE, 0.9, batch=4, generator=seeded())
    assert masks.visible.shape == (4, 1568 - 1411)  # int(0.9 * 1568)
    slices = shown(masks.visible, BASE)
    assert not torch.equal(slices[:, 0], slices[:, 1])


def test_frame_mask_hides_whole_slices() -> None:
    masks = frame_masks(BASE, 0.75, batch=4, generator=seeded())
    per_slice = shown(masks.visible, BASE).sum(-1)
    assert sorted(per_slice.unique().tolist()) == [0, 196]
    assert torch.equal((per_slice == 0).sum(-1), torch.full((4,), 6))


@pytest.mark.parametrize("kind", KINDS)
def test_visible_and_hidden_partition_the_tokens_in_raster_order(kind: Any) -> None:
    visible, decoded = draw_masks(MaskConfig(kind=kind, ratio=0.75), SMALL, batch=5, generator=seeded())
    assert visible.dtype == decoded.dtype == torch.int64
    for b in range(5):
        assert sorted(visible[b].tolist() + decoded[b].tolist()) == list(range(SMALL.num_tokens))
    for indices in (visible, decoded):
        assert torch.equal(indices, indices.sort(dim=1).values)


@pytest.mark.parametrize("decoder_kind", ["all", "running_cell"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_masks_and_another_seed_others(kind: Any, decoder_kind: Any) -> None:
    config = MaskConfig(kind=kind, ratio=0.5, decoder_kind=decoder_kind)
    first, again, other = (draw_masks(config, SMALL, batch=8, generator=seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.visible, again.visible)
    assert torch.equal(first.decoded, again.decoded)
    assert not torch.equal(first.visible, other.visible)
    assert not torch.equal(first.decoded, other.decoded)


@pytest.mark.parametrize("kind", KINDS)
def test_every_video_of_a_batch_and_every_batch_is_drawn_anew(kind: Any) -> None:
    generator = seeded()
    config = MaskConfig(kind=kind, ratio=0.5)
    batches = [draw_masks(config, SMALL, batch=16, generator=generator).visible for _ in range(2)]
    assert not torch.equal(*batches)
    assert all(len(batch.unique(dim=0)) > 1 for batch in batches)


@pytest.mark.parametrize(("kind", "ratio"), [("tube", 0.75), ("random", 0.75), ("frame", 0.5)])
def test_each_place_is_hidden_equally_often(kind: Any, ratio: float) -> None:
    draws = 4000
    masks = draw_masks(MaskConfig(kind=kind, ratio=ratio), SMALL, batch=draws, generator=seeded())
    times_hidden = membership(masks.decoded, SMALL.num_tokens).sum(0)
    rate = masks.decoded.shape[1] / SMALL.num_tokens
    # Five standard deviations of a binomial: one place in about two million falls outside by chance.
    margin = 5 * math.sqrt(draws * rate * (1 - rate))
    assert (times_hidden - draws * rate).abs().max().item() < margin
    assert times_hidden.unique().numel() > 1, "drawn, not dealt out"


@pytest.mark.parametrize("entry", ["0.5_8x14x14", "0.5_8x4x4", "0.75_8x14x14"])
def test_running_cells_are_those_of_the_original(entry: str) -> None:
    golden = load_file(GOLDEN)[f"running_cell_{entry}"]
    ratio, sizes = entry.split("_")
    ours = running_cell_masks(TokenGrid(*map(int, sizes.split("x"))), float(ratio))
    assert torch.equal(ours, golden)


@pytest.mark.parametrize(("ratio", "decoded_of_four"), [(0.25, 3), (0.5, 2), (0.75, 1)])
def test_running_cells_decode_every_place_equally_often_in_four_slices(ratio: float, decoded_of_four: int) -> None:
    hidden = running_cell_masks(BASE, ratio).view(4, 8, 196)
    windows = (~hidden).unfold(1, 4, 1).sum(-1)
    assert torch.equal(windows, torch.full_like(windows, decoded_of_four))


def test_running_cells_are_drawn_per_video_from_all_four_phases() -> None:
    config = MaskConfig(decoder_kind="running_cell", decoder_ratio=0.5)
    masks = draw_masks(config, BASE, batch=400, generator=seeded())
    assert masks.visible.shape == (400, 160)
    assert masks.decoded.shape == (400, 784)
    phases = running_cell_masks(BASE, 0.5)
    not_decoded = ~membership(masks.decoded, BASE.num_tokens)
    drawn = torch.stack([(not_decoded == phase).all(1) for phase in phases])  # [4, B]
    assert torch.equal(drawn.sum(0), torch.ones(400, dtype=torch.int64))
    margin = 5 * math.sqrt(400 * 0.25 * 0.75)
    assert (drawn.sum(1) - 100).abs().max().item() < margin


def test_running_cells_do_not_change_what_the_encoder_sees() -> None:
    plain, dual = (
        draw_masks(MaskConfig(decoder_kind=kind), BASE, batch=2, generator=seeded())
        for kind in ("all", "running_cell")
    )
    assert torch.equal(plain.visible, dual.visible)


def test_masks_live_on_the_generators_device() -> None:
    assert draw_running_cells(SMALL, 0.5, batch=2, generator=seeded()).device.type == "cpu"
    if torch.cuda.is_available():
        generator = torch.Generator(device="cuda").manual_seed(0)
        config = MaskConfig(decoder_kind="running_cell")
        masks = draw_masks(config, BASE, batch=2, generator=generator)
        assert masks.visible.device.type == masks.decoded.device.type == "cuda"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 90}, r"mask.ratio is 90; it is a fraction in \(0, 1\): did you mean 0.9\?$"),
        ({"ratio": 0.0}, r"mask.ratio is 0; it is a fraction in \(0, 1\)$"),
        ({"ratio": 1.0}, r"mask.ratio is 1; it is a fraction in \(0, 1\)$"),
        ({"decoder_ratio": 50}, r"mask.decoder_ratio is 50; it is a fraction in \(0, 1\): did you mean 0.5\?"),
        ({"kind": "tubes"}, "mask.kind is 'tubes': choose one of tube, random, frame"),
        ({"decoder_kind": "cell"}, "mask.decoder_kind is 'cell': choose one of all, running_cell"),
    ],
)
def test_a_bad_setting_is_named_with_its_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskConfig(**settings)


@pytest.mark.parametrize(
    ("kind", "ratio", "message"),
    [
        ("tube", 0.01, "mask.ratio 0.01 hides 0 of 24 tokens: at least one must be hidden and one visible"),
        ("frame", 0.2, "mask.ratio 0.2 hides 0 of 4 tokens"),
        ("random", 0.001, "mask.ratio 0.001 hides 0 of 96 tokens"),
    ],
)
def test_a_ratio_that_hides_nothing_is_refused(kind: Any, ratio: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_masks(MaskConfig(kind=kind, ratio=ratio), SMALL, batch=1, generator=seeded())


def test_hiding_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="hides 1 of 1 tokens"):
        hidden_count(1, 1.0)


@pytest.mark.parametrize(
    ("grid", "ratio", "message"),
    [
        (SMALL, 0.2, "mask.decoder_ratio is 0.2; running cells hold 4 tokens: use 0.25, 0.5 or 0.75"),
        (TokenGrid(8, 7, 14), 0.5, "running-cell masking needs an even token grid, got 7x14: change the image size"),
        (TokenGrid(8, 14, 7), 0.5, "needs an even token grid, got 14x7"),
    ],
)
def test_running_cells_refuse_what_they_cannot_tile(grid: TokenGrid, ratio: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        running_cell_masks(grid, ratio)


def test_a_subset_decodes_that_fraction_of_the_hidden_tokens_and_nothing_else() -> None:
    masks = draw_masks(
        MaskConfig(ratio=0.75, decoder_kind="subset", decoder_ratio=0.5), BASE, batch=3, generator=seeded()
    )
    everything = complement(masks.visible, BASE.num_tokens)
    assert masks.decoded.shape[1] == everything.shape[1] // 2
    for row in range(3):
        decoded = set(masks.decoded[row].tolist())
        assert len(decoded) == masks.decoded.shape[1]
        assert decoded < set(everything[row].tolist())
    assert set(masks.decoded[0].tolist()) != set(masks.decoded[1].tolist())
