"""Tables of features: windows over many videos, what a kill leaves, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from videomae.cli import main
from videomae.errors import ConfigError, RunError
from videomae.inference.configs import Pooling
from videomae.inference.feature_job import TableResult, write_feature_table
from videomae.inference.feature_table import parts_folder, table_metadata
from videomae.inference.loaded import load_encoder
from videomae.inference.pooling import pooled_rows
from videomae.inference.window_choice import WindowChoice
from videomae.video.decode import read_clip
from videomae.video.write import write_video

WINDOWS = WindowChoice(window_seconds=0.4, step_seconds=0.2)


def frames_of(num_frames: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (num_frames, 8, 12, 3), dtype=np.uint8)
    return noise.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 20 frames a second: 1, 2, 0.5 and 1.5 seconds long."""
    folder = tmp_path_factory.mktemp("collection")
    for seed, num_frames in enumerate((20, 40, 10, 30)):
        write_video(folder / f"{seed}.mp4", frames_of(num_frames, seed), frame_rate=20.0)
    return folder


def table(folder: Path, videos: list[Path], output: Path, **settings: object) -> TableResult:
    return write_feature_table(folder, videos, output, **{"windows": WINDOWS, "device": "cpu", **settings})  # type: ignore[arg-type]


def rows_of(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("pooling", ["clip", "attention", "tubelet"])
def test_rows_of_windows_batched_over_videos_equal_single_clips_to_the_bit(
    encoder_folder: Path, collection: Path, tmp_path: Path, pooling: Pooling
) -> None:
    result = table(encoder_folder, [collection], tmp_path / "f.parquet", pooling=pooling, batch_size=3)
    assert [one.windows for one in result.finished] == [5, 10, 2, 7]  # the last window ends with the video
    loaded = load_encoder(encoder_folder, device="cpu")
    rows = rows_of(tmp_path / "f.parquet")
    per_window = {"clip": 1, "attention": 1, "tubelet": 2}[pooling]
    assert len(rows) == 24 * per_window
    for number in (0, 6, 15, 23):
        row = rows[number * per_window]
        first = round(row["start"] * 20)  # type: ignore[operator]
        frames = read_clip(row["path"], first + 2 * np.arange(4))  # type: ignore[arg-type]
        clip = loaded.processor(
            frames, return_tensors="pt", do_rescale=False, do_normalize=False, input_data_format="channels_last"
        ).pixel_values.to(torch.uint8)
        alone = pooled_rows(loaded, clip, pooling)[0].reshape(per_window, -1)
        found = np.array([one["vector"] for one in rows[number * per_window : (number + 1) * per_window]], np.float32)
        assert np.array_equal(found, alone.numpy())
    assert rows[0]["end"] == pytest.approx(0.35 if pooling != "tubelet" else 0.15)


def test_batch_size_and_threads_change_no_bit(encoder_folder: Path, collection: Path, tmp_path: Path) -> None:
    for name, settings in {"a": {"batch_size": 1, "workers": 1}, "b": {"batch_size": 16, "workers": 3}}.items():
        table(encoder_folder, [collection], tmp_path / f"{name}.parquet", **settings)
    assert rows_of(tmp_path / "a.parquet") == rows_of(tmp_path / "b.parquet")


def test_npz_holds_the_columns_of_parquet(encoder_folder: Path, collection: Path, tmp_path: Path) -> None:
    for name in ("f.parquet", "f.npz"):
        table(encoder_folder, [collection], tmp_path / name)
    arrays, rows = np.load(tmp_path / "f.npz"), pq.read_table(tmp_path / "f.parquet")
    assert set(arrays.files) == {*rows.column_names, "videomae"}
    assert np.array_equal(arrays["vector"], np.array(rows["vector"].to_pylist(), np.float32))
    assert arrays["path"].tolist() == rows["path"].to_pylist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npz", "f.parquet"]


def test_shards_together_are_the_whole(encoder_folder: Path, collection: Path, tmp_path: Path) -> None:
    table(encoder_folder, [collection], tmp_path / "whole.parquet")
    for shard in range(3):
        table(encoder_folder, [collection], tmp_path / f"{shard}.parquet", shard=(shard, 3))
    key = lambda row: (row["path"], row["window"])  # noqa: E731
    parts = [row for shard in range(3) for row in rows_of(tmp_path / f"{shard}.parquet")]
    assert sorted(parts, key=key) == sorted(rows_of(tmp_path / "whole.parquet"), key=key)


def test_resume_adds_videos_to_a_table_and_does_none_again(
    encoder_folder: Path, collection: Path, tmp_path: Path
) -> None:
    output, videos = tmp_path / "f.parquet", sorted(collection.glob("*.mp4"))
    table(encoder_folder, videos[:2], output)
    again = table(encoder_folder, videos, output, resume=True)
    assert (again.num_before, len(again.finished)) == (2, 4)
    table(encoder_folder, videos, tmp_path / "whole.parquet")
    assert rows_of(output) == rows_of(tmp_path / "whole.parquet")
    written = output.stat().st_mtime_ns
    assert table(encoder_folder, videos, output, resume=True).num_before == 4
    assert output.stat().st_mtime_ns == written


def test_resume_with_other_settings_is_refused_by_name(
    encoder_folder: Path, pretraining_folder: Path, collection: Path, tmp_path: Path
) -> None:
    table(encoder_folder, [collection], tmp_path / "f.parquet")
    with pytest.raises(ConfigError, match=r"was made with pooling clip, and now pooling is attention: give the same"):
        table(encoder_folder, [collection], tmp_path / "f.parquet", pooling="attention", resume=True)
    with pytest.raises(ConfigError, match=r"made with model .*, and now model is .*another name for the output"):
        table(pretraining_folder, [collection], tmp_path / "f.parquet", resume=True)


@pytest.mark.slow
def test_a_killed_process_loses_no_finished_video_and_the_rest_is_the_same_to_the_bit(
    encoder_folder: Path, collection: Path, tmp_path: Path
) -> None:
    long, output = tmp_path / "long.mp4", tmp_path / "f.parquet"
    write_video(long, np.concatenate([frames_of(30, seed) for seed in range(40)]), frame_rate=20.0)
    videos = [*sorted(collection.glob("*.mp4")), long]
    words = ["features", "--model", str(encoder_folder), *map(str, videos), "--device", "cpu"]
    words += ["--window", "0.4", "--step", "0.1", "--batch_size", "1", "--out"]
    # Every batch is written at once, so that there is something to kill between parts.
    code = (
        "import sys; from videomae.inference.feature_job import write_feature_table;"
        "write_feature_table.__kwdefaults__['flush_seconds'] = 0.0;"
        "from videomae.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *words, str(output)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(parts_folder(output).glob("*.parquet"))) < 60:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    kept = sorted(parts_folder(output).glob("*.parquet"))
    finished = {one["path"] for part in kept for one in table_metadata(part)["videos"]}
    assert finished == {str(path) for path in sorted(collection.glob("*.mp4"))}
    before = {(row["path"], row["window"]): row for part in kept for row in rows_of(part)}

    choice = WindowChoice(window_seconds=0.4, step_seconds=0.1)
    with pytest.raises(ConfigError, match=r"holds an unfinished f\.parquet: give --resume"):
        table(encoder_folder, videos, output, windows=choice)
    assert table(encoder_folder, videos, output, windows=choice, resume=True).num_before == 4
    table(encoder_folder, videos, tmp_path / "whole.parquet", windows=choice)
    rows = rows_of(output)
    assert rows == rows_of(tmp_path / "whole.parquet")
    assert 60 <= len(before) < len(rows)  # it was killed in the middle of the long video
    assert not parts_folder(output).exists()


def test_a_full_disk_keeps_complete_parts_and_resume_goes_on(
    encoder_folder: Path, collection: Path, tmp_path: Path
) -> None:
    import resource

    output, limits = tmp_path / "f.parquet", resource.getrlimit(resource.RLIMIT_FSIZE)
    videos = sorted(collection.glob("*.mp4"))
    table(encoder_folder, videos[2:3], tmp_path / "small.parquet", pooling="token", batch_size=2)
    limit = (tmp_path / "small.parquet").stat().st_size * 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        table(encoder_folder, videos[2:3], output, pooling="token", batch_size=2)
        with pytest.raises(RunError, match=r"f\.parquet cannot be written \(.*File too large\): free space, then"):
            table(encoder_folder, videos, output, pooling="token", batch_size=40, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {row["path"] for row in rows_of(output)} == {str(videos[2])}
    result = table(encoder_folder, videos, output, pooling="token", batch_size=40, resume=True)
    assert (result.num_before, len(result.finished)) == (1, 4)


def test_a_video_that_breaks_off_yields_what_was_decoded_marked_with_the_fault(
    encoder_folder: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mkv"
    write_video(cut, frames_of(60, 9), frame_rate=20.0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    output = tmp_path / "f.parquet"
    words = ["features", "--model", str(encoder_folder), str(cut), str(collection / "0.mp4"), "--step", "0.2"]
    assert main([*words, "--out", str(output), "--device", "cpu"]) == 2
    assert "cut.mkv" in capsys.readouterr().err
    rows = rows_of(output)
    marked = [row for row in rows if row["path"] == str(cut)]
    assert 3 <= len(marked) < len(rows)
    assert all("cut.mkv" in row["fault"] for row in marked)  # type: ignore[operator]
    assert all(row["fault"] is None for row in rows if row["path"] != str(cut))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "0"], "step is 0; it is in seconds, above 0, such as --step 2"),
        (["--window", "-1"], "window is -1; it is in seconds, above 0"),
        (["--window", "9"], "window is 9 seconds and"),
        (["--step_frames", "0"], "step_frames is 0; clips must move on by at least 1 frame"),
        (["--step_frames", "2", "--step", "1"], "step_frames is given with window or step"),
        (["--shard", "2/2"], "shard is '2/2'; it is i/n with i from 0 to n - 1"),
        (["--workers", "0"], "workers is 0; it is a number of threads, at least 1"),
        (["--batch_size", "0"], "batch_size is 0"),
        (["--out", "x.csv"], "a table's name must end with .parquet or .npz"),
        (["--out", "x.safetensors", "--resume"], "--resume is given with x.safetensors"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_fix(
    encoder_folder: Path,
    collection: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    given = words if "--out" in words else [*words, "--out", str(tmp_path / "f.parquet")]
    assert (
        main(["features", "--model", str(encoder_folder), str(collection / "0.mp4"), "--device", "cpu", *given]) == 2
    )
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bf16_features_are_close_to_those_in_fp32(encoder_folder: Path, collection: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        table(encoder_folder, [collection], tmp_path / f"{precision}.parquet", precision=precision)
    exact, rounded = (
        np.array([row["vector"] for row in rows_of(tmp_path / f"{name}.parquet")]) for name in ("fp32", "bf16")
    )
    cosines = (exact * rounded).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert 0.99 < cosines.min() < 1.0
