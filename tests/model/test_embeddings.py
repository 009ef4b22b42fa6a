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
from videomae.model.embeddings import MAX_GRIDS, PatchEmbeddings, PositionTable, interpolate_table
from videomae.model.encoder import VideoMAEModel
from videomae.patches import TokenGrid, TubeletSize, cut_tubelets
from videomae.positions import sinusoid_table

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


@pytest.mark.parametrize("kernel", [(2, 4, 4), (1, 8, 2), (3, 2, 4)])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_projection_equals_conv3d(kernel: tuple[int, int, int], num_channels: int) -> None:
    ours = PatchEmbeddings(num_channels, 10, kernel)
    conv = nn.Conv3d(num_channels, 10, kernel, stride=kernel)
    conv.load_state_dict(ours.projection.state_dict())
    video = torch.randn(2, 6, num_channels, 8, 8)
    expected = conv(video.transpose(1, 2)).flatten(2).transpose(1, 2)
    assert_near(ours(cut_tubelets(video, TubeletSize(*kernel))), expected, terms=model_terms(ours, tokens=0))


def test_projection_starts_as_conv3d_does() -> None:
    torch.manual_seed(3)
    ours = PatchEmbeddings(3, 10, (2, 4, 4)).projection
    torch.manual_seed(3)
    conv = nn.Conv3d(3, 10, (2, 4, 4))
    assert torch.equal(ours.weight, conv.weight)
    assert torch.equal(ours.bias, conv.bias)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_tables_are_buffers_that_no_file_has(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls)
    tables = [name for name, _ in model.named_buffers() if "positions.table" in name]
    assert len(tables) == (2 if hasattr(model, "decoder") else 1)
    assert not set(tables) & set(model.state_dict())
    assert len(list(model.buffers())) == len(tables)
    assert {buffer.dtype for buffer in model.to(torch.float64).buffers()} == {torch.float64}
    assert {buffer.device.type for buffer in model.to("meta").buffers()} == {"meta"}


def test_tables_for_other_grids_follow_the_module_too() -> None:
    positions = PositionTable(NATIVE, 12)
    positions(TokenGrid(2, 3, 4))
    assert not positions.state_dict()
    assert positions.to(torch.float64)(TokenGrid(2, 3, 4)).dtype == torch.float64
    assert positions.to("meta")(TokenGrid(2, 3, 4)).device.type == "meta"


def test_a_table_is_computed_once_for_each_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = PositionTable(NATIVE, 12)
    assert positions(NATIVE) is positions.table
    other, third = TokenGrid(8, 6, 8), TokenGrid(4, 3, 4)
    first, second = positions(other), positions(third)
    monkeypatch.setattr("videomae.model.embeddings.interpolate_table", None)  # a second computation would fail
    assert positions(other) is first
    assert positions(third) is second
    assert first is not second


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
    tokens = model.embeddings(video, visible)
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
    assert not any(buffer.is_inference() for buffer in model.buffers())
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


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_model_made_on_the_meta_device_works_once_it_is_emptied_and_loaded(
    cls: type[VideoMAEPreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(cls)
    with torch.device("meta"):
        shell = cls(model.config)
    empty_like = torch.empty_like
    # Memory that nobody wrote to holds anything: here 7 everywhere.
    monkeypatch.setattr(torch, "empty_like", lambda one, **options: empty_like(one, **options).fill_(7.0))
    shell.to_empty(device="cpu")
    monkeypatch.undo()
    assert all(bool((parameter == 7.0).all()) for parameter in shell.parameters()), "to_empty takes another way"
    shell.load_state_dict(model.state_dict())
    inputs = inputs_for(model)
    assert torch.equal(scalar(shell(**inputs)), scalar(model(**inputs)))
    tables = dict(model.named_buffers())
    assert all(torch.equal(buffer, tables[name]) for name, buffer in shell.named_buffers())


def test_a_table_on_the_meta_device_comes_back_with_the_module() -> None:
    positions = PositionTable(NATIVE, 12).to("meta")
    assert positions.table.is_meta
    assert torch.equal(positions.to_empty(device="cpu").table, sinusoid_table(NATIVE.num_tokens, 12))


def test_a_table_that_was_rounded_is_exact_again_in_float32() -> None:
    positions = PositionTable(NATIVE, 12).to(torch.bfloat16).to(torch.float32)
    assert torch.equal(positions.table, sinusoid_table(NATIVE.num_tokens, 12))


def test_tables_of_the_last_few_grids_alone_are_kept() -> None:
    positions = PositionTable(NATIVE, 12)
    grids = [TokenGrid(frames, 6, 8) for frames in range(5, 5 + 3 * MAX_GRIDS)]
    for grid in grids:
        positions(grid)
    assert list(positions._interpolated) == grids[-MAX_GRIDS:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_a_model_made_inside_a_device_context_lies_on_that_device(cls: type[VideoMAEPreTrainedModel]) -> None:
    with torch.device("cuda"):
        model = cls(tiny_config())
    assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {"cuda"}
