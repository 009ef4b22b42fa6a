"""From pixels to tokens: the projection is a Conv3d, the position codes are the original's to the last bit."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from tiny_models import ALL_CLASSES, inputs_for, make_model, random_mask, random_video, scalar, tiny_config
from tolerances import assert_near, model_terms
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.embeddings import VideoMAEPatchEmbeddings
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import TokenGrid
from videomae.positions import MAX_TABLES, PositionTables, interpolate_table, sinusoid_table

NATIVE = TokenGrid(4, 6, 8)


def published_table(num_tokens: int, width: int) -> np.ndarray:
    """Return the codes by the published formula over whole float64 arrays, sines and cosines written in place."""
    exponents = np.array([2 * (column // 2) / width for column in range(width)])
    angles = np.arange(num_tokens)[:, None] / np.power(10000, exponents)[None, :]
    angles[:, 0::2] = np.sin(angles[:, 0::2])
    angles[:, 1::2] = np.cos(angles[:, 1::2])
    return angles.astype(np.float32)


def test_table_is_bit_identical_to_the_formula_written_out_number_by_number() -> None:
    table = sinusoid_table(24, 10)
    for n in range(24):
        for j in range(10):
            angle = np.float64(n) / np.power(10000.0, 2 * (j // 2) / 10)
            expected = np.float32(np.sin(angle) if j % 2 == 0 else np.cos(angle))
            assert table[0, n, j].item() == expected.item(), (n, j)
            assert expected == pytest.approx(math.sin(angle) if j % 2 == 0 else math.cos(angle), abs=1e-7)


@pytest.mark.parametrize(("num_tokens", "width"), [(1568, 768), (1568, 384), (2048, 1408), (32, 5)])
def test_table_is_bit_identical_to_the_published_formula_at_full_size(num_tokens: int, width: int) -> None:
    table = sinusoid_table(num_tokens, width)
    assert (table.dtype, table.shape) == (torch.float32, (1, num_tokens, width))
    assert np.array_equal(table[0].numpy(), published_table(num_tokens, width))


def make_patches(kernel: tuple[int, int, int] = (2, 4, 4), num_channels: int = 3) -> VideoMAEPatchEmbeddings:
    """Return the projection of tubelets of a size to width 10."""
    frames, height, width = kernel
    sizes = {"num_frames": 6, "tubelet_size": frames, "image_size": 8, "patch_size": (height, width)}
    heads = {"hidden_size": 10, "num_attention_heads": 2, "num_channels": num_channels}
    return VideoMAEPatchEmbeddings(tiny_config(**sizes, **heads))


@pytest.mark.parametrize("kernel", [(2, 4, 4), (1, 8, 2), (3, 2, 4)])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_projection_equals_conv3d(kernel: tuple[int, int, int], num_channels: int) -> None:
    ours = make_patches(kernel, num_channels)
    assert type(ours.projection) is nn.Conv3d
    video = torch.randn(2, 6, num_channels, 8, 8)
    expected = ours.projection(video.transpose(1, 2)).flatten(2).transpose(1, 2)
    assert_near(ours(video), expected, terms=model_terms(ours, tokens=0))


def test_a_projection_that_is_listened_to_or_replaced_is_called_as_upstream() -> None:
    model = make_model(VideoMAEModel)
    video, mask, seen = random_video(model.config), random_mask(), []
    expected = model(video, mask).last_hidden_state
    handle = model.embeddings.patch_embeddings.projection.register_forward_hook(
        lambda *call: seen.append((call[1][0].shape, call[2].shape))
    )
    torch.testing.assert_close(model(video, mask).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    assert seen == [((2, 3, 4, 16, 16), (2, 24, 2, 4, 4))]
    handle.remove()

    class Doubled(nn.Conv3d):
        """A projection of one's own."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(pixels)

    model.embeddings.patch_embeddings.projection.__class__ = Doubled
    positions = model.embeddings.position_embeddings.expand(2, -1, -1)[~mask].view(2, 8, 24)
    doubled = model.embeddings(video, mask) - positions
    model.embeddings.patch_embeddings.projection.__class__ = nn.Conv3d
    single = model.embeddings(video, mask) - positions
    torch.testing.assert_close(doubled, 2 * single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_tables_are_attributes_that_no_file_has_and_nothing_rounds_or_empties(
    cls: type[VideoMAEPreTrainedModel],
) -> None:
    model = make_model(cls)
    encoder = model.base_model
    assert not list(model.buffers())
    assert not any("position" in name for name in model.state_dict())
    model.to(torch.bfloat16).to_empty(device="cpu")
    assert torch.equal(encoder.embeddings.position_embeddings, sinusoid_table(32, 24))
    if hasattr(model, "decoder"):
        assert torch.equal(model.position_embeddings, sinusoid_table(32, 16))


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_model_that_started_on_the_meta_device_computes_what_its_state_dict_says(
    cls: type[VideoMAEPreTrainedModel],
) -> None:
    model = make_model(cls).eval()
    inputs = inputs_for(model)
    with torch.device("meta"):
        other = cls(model.config)
    other.to_empty(device="cpu").load_state_dict(model.state_dict())
    torch.testing.assert_close(other.eval()(**inputs).to_tuple(), model(**inputs).to_tuple(), atol=0, rtol=0)


def test_what_is_put_in_the_place_of_a_table_is_used() -> None:
    model = make_model(VideoMAEModel).eval()
    video, longer = random_video(model.config), torch.randn(2, 8, 3, 16, 16)
    before = model(video).last_hidden_state, model(longer).last_hidden_state
    table = model.embeddings.position_embeddings
    assert table.shape == (1, model.embeddings.num_patches, 24)
    model.embeddings.position_embeddings = table.flip(1)
    for clip, old in zip((video, longer), before, strict=True):
        assert not torch.allclose(model(clip).last_hidden_state, old, atol=1e-3)
    model.embeddings.position_embeddings = table
    for clip, old in zip((video, longer), before, strict=True):
        assert torch.equal(model(clip).last_hidden_state, old)
    model.embeddings.position_embeddings = nn.Parameter(table.clone())
    scalar(model(longer)).backward()
    assert model.embeddings.position_embeddings.grad.abs().max() > 0


def test_a_model_trained_on_another_grid_interpolates_every_table_from_that_grid_once() -> None:
    trained, other = TokenGrid(8, 4, 4), TokenGrid(5, 4, 6)
    model = make_model(VideoMAEForPreTraining, position_grid=[8, 4, 4])
    for copied in (model, copy.deepcopy(model), model.to(torch.float32)):
        encoder = copied.videomae.embeddings
        codes = sinusoid_table(trained.num_tokens, 24)
        assert encoder.position_embeddings.shape == (1, encoder.num_patches, 24)
        for grid in (TokenGrid(2, 4, 4), other):
            assert torch.equal(encoder.positions(grid), interpolate_table(codes, trained, grid))
        assert torch.equal(encoder.positions(trained), codes)
        decoder = interpolate_table(sinusoid_table(trained.num_tokens, 16), trained, TokenGrid(2, 4, 4))
        assert torch.equal(copied.position_embeddings, decoder)


def test_what_is_put_in_the_place_of_an_interpolated_table_is_used() -> None:
    embeddings = make_model(VideoMAEModel, position_grid=[8, 4, 4]).embeddings
    trained, native = TokenGrid(8, 4, 4), TokenGrid(2, 4, 4)
    own = embeddings.position_embeddings.flip(1)
    embeddings.position_embeddings.copy_(own)
    assert torch.equal(embeddings.positions(trained), interpolate_table(own, native, trained))
    embeddings.position_embeddings = own.flip(1)
    assert torch.equal(embeddings.positions(trained), interpolate_table(own.flip(1), native, trained))


def test_a_table_is_computed_once_for_each_grid_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    positions, cpu = PositionTables(12, NATIVE, NATIVE), torch.device("cpu")
    native = positions.native
    assert positions.table(native, NATIVE, cpu) is native
    grids = [TokenGrid(frames, 6, 8) for frames in range(5, 25)]
    tables = [positions.table(native, grid, cpu) for grid in grids]
    assert len(positions._tables) == MAX_TABLES
    monkeypatch.setattr("videomae.positions.interpolate_table", None)  # a second computation would fail
    for grid, table in zip(grids[-MAX_TABLES:], tables[-MAX_TABLES:], strict=True):
        assert positions.table(native, grid, cpu) is table


def test_interpolation_to_the_same_grid_changes_nothing() -> None:
    table = sinusoid_table(NATIVE.num_tokens, 12)
    assert_near(interpolate_table(table, NATIVE, NATIVE), table, terms=8)  # two neighbours a side


@pytest.mark.parametrize("grid", [TokenGrid(8, 6, 8), TokenGrid(4, 12, 16), TokenGrid(8, 12, 16)])
def test_interpolation_keeps_the_code_of_a_place_in_the_video(grid: TokenGrid) -> None:
    # On a grid twice as fine, the mean of the new tokens inside an old one lies where the old one's centre lies.
    table = sinusoid_table(NATIVE.num_tokens, 12)
    fine = interpolate_table(table, NATIVE, grid).view(*_sizes(grid), 12)
    factors = [new // old for new, old in zip(_sizes(grid), _sizes(NATIVE), strict=True)]
    pooled = nn.functional.avg_pool3d(fine.permute(3, 0, 1, 2), factors).permute(1, 2, 3, 0)
    coarse = table.view(*_sizes(NATIVE), 12)
    inner = tuple(slice(1, -1) for _ in range(3))  # at the border the interpolation has one neighbour only
    smooth = slice(8, 12)  # faster columns turn by half a radian and more between slices, which no line follows
    torch.testing.assert_close(pooled[inner][..., smooth], coarse[inner][..., smooth], atol=0.003, rtol=0)


def test_interpolated_codes_lie_between_their_neighbours() -> None:
    table = torch.arange(NATIVE.num_tokens, dtype=torch.float32).view(1, -1, 1)
    finer = interpolate_table(table, NATIVE, TokenGrid(8, 12, 16)).view(8, 12, 16)
    for axis in range(3):
        steps = finer.diff(dim=axis)
        largest = {0: 48.0, 1: 8.0, 2: 1.0}[axis]
        assert steps.min() >= -1e-4
        assert steps.max() <= largest * 0.5 + 1e-4


def _sizes(grid: TokenGrid) -> tuple[int, int, int]:
    return grid.frames, grid.height, grid.width


@pytest.mark.parametrize("shape", [(8, 16, 16), (2, 16, 16), (4, 32, 16), (4, 16, 24), (6, 8, 28)], ids=str)
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_every_model_takes_other_frame_counts_and_sizes(
    cls: type[VideoMAEPreTrainedModel], shape: tuple[int, int, int]
) -> None:
    frames, height, width = shape
    model = make_model(cls)
    num_tokens = frames * height * width // 32
    inputs = {**inputs_for(model), "pixel_values": torch.randn(2, frames, 3, height, width)}
    if "bool_masked_pos" in inputs:
        inputs["bool_masked_pos"] = random_mask(num_tokens, num_tokens // 2)
    output = model(**inputs)
    if "logits" in output and hasattr(model, "decoder"):
        assert output.logits.shape == (2, num_tokens // 2, 96)
    elif "last_hidden_state" in output:
        assert output.last_hidden_state.shape == (2, num_tokens, 24)
    scalar(output).backward()
    assert torch.isfinite(scalar(output))


def test_embedding_adds_the_code_of_each_visible_place() -> None:
    model = make_model(VideoMAEModel)
    video = random_video(model.config)
    visible = torch.tensor([[3, 31, 7], [0, 9, 20]])
    tokens = model.embeddings(video, visible_indices=visible)
    conv = nn.functional.conv3d(
        video.transpose(1, 2), *model.embeddings.patch_embeddings.projection.parameters(), stride=(2, 4, 4)
    )
    every = conv.flatten(2).transpose(1, 2) + torch.from_numpy(published_table(32, 24))
    expected = torch.stack([row[numbers] for row, numbers in zip(every, visible, strict=True)])
    terms = model_terms(model.embeddings, tokens=0)
    assert_near(tokens, expected, terms=terms)
    assert_near(model.embeddings(video, None), every, terms=terms)


def test_a_table_first_used_in_inference_mode_serves_training() -> None:
    model = make_model(VideoMAEModel)
    video = torch.randn(1, 8, 3, 16, 16)
    with torch.inference_mode():
        model(video)
    assert not any(table.is_inference() for table in model.embeddings.position_tables._tables.values())
    for one in (model, copy.deepcopy(model)):
        scalar(one(video)).backward()


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_model_made_on_the_meta_device_works_once_its_weights_are_assigned(
    cls: type[VideoMAEPreTrainedModel],
) -> None:
    model = make_model(cls)
    with torch.device("meta"):
        shell = cls(model.config)
    assert {parameter.device.type for parameter in shell.parameters()} == {"meta"}
    shell.load_state_dict(model.state_dict(), assign=True)
    inputs = inputs_for(model)
    assert torch.equal(scalar(shell(**inputs)), scalar(model(**inputs)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_model_made_inside_a_device_context_lies_on_that_device(cls: type[VideoMAEPreTrainedModel]) -> None:
    with torch.device("cuda"):
        model = cls(tiny_config())
    assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {"cuda"}


def test_a_model_that_is_built_copied_and_called_in_inference_mode_is_the_same_model() -> None:
    torch.manual_seed(0)
    usual = VideoMAEModel(tiny_config()).eval()
    with torch.inference_mode():
        torch.manual_seed(0)
        built = VideoMAEModel(tiny_config()).eval()
        video = random_video(built.config)
        longer = torch.cat([video, video], dim=1)  # a grid whose table is interpolated
        for clip in (video, longer):
            expected = usual(clip).last_hidden_state
            assert torch.equal(built(clip).last_hidden_state, expected)
            assert torch.equal(copy.deepcopy(usual)(clip).last_hidden_state, expected)
            assert torch.equal(built.to(torch.float32)(clip).last_hidden_state, expected)
