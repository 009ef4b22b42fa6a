"""Features in 8-bit integers: taken where they are those in float32, said how near, refused elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from videomae.cli import main
from videomae.errors import ConfigError
from videomae.inference import int8
from videomae.inference.certificate import (
    Certificate,
    certificate_of,
    in_feature_precision,
)
from videomae.inference.feature_job import write_feature_table
from videomae.inference.int8 import Int8Linear, multiplies_exactly
from videomae.inference.loaded import load_encoder
from videomae.inference.pooling import Encoder, pooled_rows
from videomae.inference.some_windows import NUM_WINDOWS, spread_windows
from videomae.inference.window_choice import WindowChoice
from videomae.video.write import write_video

exactly = pytest.mark.skipif(not multiplies_exactly(), reason="this processor's products of 8-bit integers overflow")
WINDOWS = WindowChoice(window_seconds=0.4, step_seconds=0.2)
EVERYWHERE = WindowChoice(step_frames=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two videos of 5 windows and 10."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, num_frames in enumerate((20, 40)):
        frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 8, 12, 3), dtype=np.uint8)
        write_video(folder / f"{seed}.mp4", frames.repeat(4, axis=1).repeat(4, axis=2), frame_rate=20.0)
    return sorted(folder.glob("*.mp4"))


def windows_of(
    loaded: Encoder, videos: list[Path], choice: WindowChoice = EVERYWHERE
) -> Generator[Tensor, None, None]:
    return spread_windows(videos, choice, clip=loaded.clip, processor=loaded.processor)


def test_windows_are_spread_over_the_videos_that_can_be_read(encoder_folder: Path, videos: list[Path]) -> None:
    loaded = load_encoder(encoder_folder, device="cpu")
    first, second = (torch.cat(list(windows_of(loaded, [video]))) for video in videos)
    assert len(first) == len(second) == NUM_WINDOWS
    both = torch.cat(list(windows_of(loaded, videos)))
    assert len(both) == NUM_WINDOWS
    assert not torch.equal(both[:4], both[4:])
    gone = videos[0].with_name("gone.mp4")
    found = torch.cat(list(windows_of(loaded, [gone, videos[1]])))
    assert torch.equal(found, both[4:])


def test_without_their_mean_vectors_tell_whether_windows_can_be_told_apart() -> None:
    torch.manual_seed(0)
    alike = 10 + torch.randn(8, 1, 64) * torch.tensor([1.0, 1.0])[:, None]
    good, bad = (
        certificate_of(alike + torch.tensor([[0.0], [noise]]) * torch.randn(8, 1, 64)) for noise in (0.1, 3.0)
    )
    assert min(good.plain, bad.plain) > 0.9
    assert good.lowest > 0.95
    assert bad.lowest < 0.6
    assert certificate_of(alike[:1]) == (1, pytest.approx(1.0), pytest.approx(1.0))


@exactly
def test_the_certificate_is_of_the_vectors_in_both_precisions(encoder_folder: Path, videos: list[Path]) -> None:
    loaded = load_encoder(encoder_folder, device="cpu")
    told: list[Certificate] = []
    windows = windows_of(loaded, videos, WINDOWS)
    model, dtype = in_feature_precision(loaded, "int8", "token", windows, told=told.append)
    assert any(isinstance(one, Int8Linear) for one in model.model.modules())
    assert not any(isinstance(one, Int8Linear) for one in loaded.model.modules())
    clips = torch.cat(list(windows_of(loaded, videos, WINDOWS)))
    exact = pooled_rows(loaded, clips, "token").flatten(1)
    found = pooled_rows(model, clips, "token", dtype=dtype).flatten(1)
    assert told == [certificate_of(torch.stack([exact, found], dim=1))]
    (one,) = told
    assert one.num_windows == NUM_WINDOWS
    assert 0.95 < one.lowest < one.plain < 1.0
    assert one.line() == (
        f"int8 compared with fp32, on 8 windows: cosine {one.plain:.5f} at the lowest, without the mean of the "
        f"windows {one.lowest:.5f}"
    )


@exactly
@pytest.mark.parametrize("name", ["f.parquet", "f.safetensors"])
def test_int8_features_are_written_with_their_certificate_printed(
    encoder_folder: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = ["features", "--model", str(encoder_folder), *map(str, videos), "--device", "cpu", "--step", "0.2"]
    vectors = {}
    for precision in ("fp32", "int8"):
        out = tmp_path / precision
        out.mkdir()
        assert main([*words, "--precision", precision, "--out", str(out / name)]) == 0
        if name.endswith(".parquet"):
            vectors[precision] = np.stack(pq.read_table(out / name)["vector"].to_numpy())
        else:
            with safe_open(out / name, framework="np") as file:
                keys = sorted(key for key in file.keys() if key.endswith("/features"))  # noqa: SIM118 - no mapping
                vectors[precision] = np.concatenate([file.get_tensor(key) for key in keys])
    exact, rounded = vectors["fp32"], vectors["int8"]
    cosines = (exact * rounded).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert 0.99 < cosines.min() < 1.0
    lines = [
        one for one in capsys.readouterr().out.splitlines() if one.startswith("int8 compared with fp32, on 8 windows")
    ]
    assert len(lines) == 1


@exactly
def test_vectors_below_the_bound_are_refused_before_anything_is_written_unless_forced(
    encoder_folder: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["features", "--model", str(encoder_folder), *map(str, videos), "--device", "cpu", "--precision", "int8"]
    for name in ("f.parquet", "f.safetensors"):
        command = [*words, "--out", str(tmp_path / name), "--min_cosine"]
        assert main([*command, "1"]) == 2
        printed = capsys.readouterr()
        assert "int8 compared with fp32" in printed.out
        assert "which is below 1: use --precision fp32, or --min_cosine 0" in printed.err
        assert list(tmp_path.iterdir()) == []
        assert main([*command, "0"]) == 0
        (tmp_path / name).unlink()
    assert main([*command, "1.5"]) == 2
    assert "min_cosine is 1.5; it is the lowest cosine to accept, from 0 to 1" in capsys.readouterr().err


def test_int8_is_refused_where_the_processor_does_not_compute_it(
    encoder_folder: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "multiplies_exactly", lambda: False)
    with pytest.raises(ConfigError, match="it has no VNNI instructions, or is kept from using them; use precision"):
        write_feature_table(encoder_folder, videos, tmp_path / "f.parquet", device="cpu", precision="int8")
    assert list(tmp_path.iterdir()) == []
