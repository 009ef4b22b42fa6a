"""Features on a real local Ray: the rows that this machine computes, and what is done is not done again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from videomae.cli import main
from videomae.engine.jobs import Finished
from videomae.errors import ConfigError, RunError
from videomae.inference import feature_cluster
from videomae.inference.feature_cluster import VideoJob, encode_video
from videomae.inference.feature_job import write_feature_table
from videomae.inference.feature_pass import FeaturePass
from videomae.inference.feature_table import TableParts, parts_folder, table_metadata
from videomae.inference.window_choice import WindowChoice
from videomae.video.write import write_video

WINDOWS = WindowChoice(window_seconds=0.4, step_seconds=0.2)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A local Ray of two processors."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'videomae[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 5, 10 and 7 windows."""
    folder = tmp_path_factory.mktemp("collection")
    for seed, num_frames in enumerate((20, 40, 30)):
        frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 8, 12, 3), dtype=np.uint8)
        write_video(folder / f"{seed}.mp4", frames.repeat(4, axis=1).repeat(4, axis=2), frame_rate=20.0)
    return folder


def rows_of(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_ray_writes_the_table_that_this_machine_does_and_adds_to_it(
    encoder_folder: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = [str(tmp_path / "bad.mp4"), *map(str, sorted(collection.glob("*.mp4")))]
    words = ["features", "--model", str(encoder_folder), "--window", "0.4", "--step", "0.2"]
    for engine in ("local", "ray"):
        out = str(tmp_path / f"{engine}.parquet")
        assert main([*words, *videos[:3], "--engine", engine, "--workers", "2", "--out", out]) == 2
        assert "bad.mp4 cannot be read as video" in capsys.readouterr().err
        assert main([*words, *videos[1:], "--engine", engine, "--workers", "2", "--out", out, "--resume"]) == 0
        assert "22 windows of 3 videos, 2 of them before this call" in capsys.readouterr().out
    assert rows_of(tmp_path / "ray.parquet") == rows_of(tmp_path / "local.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4", "local.parquet", "ray.parquet"]


def plan(folder: Path, settings: dict[str, object]) -> VideoJob:
    loaded = feature_cluster.load_encoder(folder, device="cpu")
    return VideoJob(str(folder), settings, WINDOWS, "clip", loaded.clip, 2, None)


@contextmanager
def stopped_after_two_parts() -> Iterator[None]:
    """Press Ctrl-C when the second part is written."""
    add, count = TableParts.add, iter(range(100))

    def stopping(self: TableParts, rows: object, over: object) -> None:
        add(self, rows, over)  # type: ignore[arg-type]
        if next(count) == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableParts, "add", stopping)
        yield


def jobs_here(monkeypatch: pytest.MonkeyPatch, *, stop_in: int | None = None) -> list[str]:
    """Do jobs in this process, and stop within one of them; returns the videos of those that were done."""
    done: list[str] = []

    def finished(function: Any, jobs: Any) -> Iterator[Any]:
        for number, job in enumerate(jobs):
            with stopped_after_two_parts() if number == stop_in else nullcontext():
                result = function(job)
            done.append(job.path)
            yield Finished(job, result)

    @contextmanager
    def jobs_on(engine: str, function: Any, jobs: Any, *, workers: int | None) -> Iterator[Iterator[Any]]:
        assert engine == "ray"
        yield finished(function, jobs)

    monkeypatch.setattr(feature_cluster, "jobs_on", jobs_on)
    return done


def test_jobs_that_were_stopped_are_gone_on_with_where_they_were(
    encoder_folder: Path, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, videos = tmp_path / "f.parquet", sorted(collection.glob("*.mp4"))
    settings = {"windows": WINDOWS, "device": "cpu", "batch_size": 2}
    monkeypatch.setitem(FeaturePass.run.__kwdefaults__, "flush_seconds", 0.0)  # every batch is a part
    with monkeypatch.context() as patch:
        done = jobs_here(patch, stop_in=1)
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="stopped: 1 of 3 videos are kept"):
            write_feature_table(encoder_folder, videos, output, engine="ray", **settings)  # type: ignore[arg-type]
        assert done == [str(videos[0])]
    begun = sorted(parts_folder(output).glob("*.parquet.parts/*.parquet"))
    assert sum(len(rows_of(one)) for one in begun) == 4, "two batches of the second video"
    with pytest.raises(ConfigError, match=r"holds an unfinished f\.parquet: give --resume"):
        write_feature_table(encoder_folder, videos, output, engine="ray", **settings)  # type: ignore[arg-type]
    computed: list[int] = []
    encoded = FeaturePass._encoded
    monkeypatch.setattr(
        FeaturePass, "_encoded", lambda self, windows: (computed.append(len(windows)), encoded(self, windows))[1]
    )
    done = jobs_here(monkeypatch)
    result = write_feature_table(encoder_folder, videos, output, engine="ray", resume=True, **settings)  # type: ignore[arg-type]
    assert (result.num_before, [one.windows for one in result.finished]) == (1, [5, 10, 7])
    assert done == [str(one) for one in videos[1:]]
    assert sum(computed) == 6 + 7
    write_feature_table(encoder_folder, videos, tmp_path / "whole.parquet", **settings)  # type: ignore[arg-type]
    assert rows_of(output) == rows_of(tmp_path / "whole.parquet")
    assert not parts_folder(output).exists()


def test_what_this_machine_has_begun_is_gone_on_with_by_a_job(
    encoder_folder: Path, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, video = tmp_path / "f.parquet", collection / "1.mp4"
    settings = {"windows": WINDOWS, "device": "cpu", "batch_size": 2}
    stopped = pytest.warns(UserWarning, match="stopped: 0 of 1")
    with stopped_after_two_parts(), pytest.raises(KeyboardInterrupt), stopped:
        write_feature_table(encoder_folder, [video], output, flush_seconds=0.0, **settings)  # type: ignore[arg-type]
    jobs_here(monkeypatch)
    write_feature_table(encoder_folder, [video], output, engine="ray", resume=True, **settings)  # type: ignore[arg-type]
    write_feature_table(encoder_folder, [video], tmp_path / "whole.parquet", **settings)  # type: ignore[arg-type]
    assert rows_of(output) == rows_of(tmp_path / "whole.parquet")


def test_a_job_refuses_weights_that_are_not_those_of_the_table_and_a_disk_that_is_full_stops_the_whole(
    encoder_folder: Path, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_feature_table(encoder_folder, [collection / "0.mp4"], tmp_path / "f.parquet", device="cpu")
    settings = table_metadata(tmp_path / "f.parquet")["settings"]
    job = plan(encoder_folder, {**settings, "weights": "0" * 16})
    assert "has other weights on this machine (" in (encode_video(job).refusal or "")

    import resource

    videos, limits = sorted(collection.glob("*.mp4")), resource.getrlimit(resource.RLIMIT_FSIZE)
    jobs_here(monkeypatch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"cannot be written \(.*File too large\): free space, then give --resume"):
            write_feature_table(encoder_folder, videos, tmp_path / "g.parquet", device="cpu", engine="ray")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "g.parquet").exists()


def test_ray_computes_on_processors_alone(encoder_folder: Path, collection: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'cuda', and the engine ray computes on processors: leave --dev"):
        write_feature_table(encoder_folder, [collection], tmp_path / "f.parquet", device="cuda", engine="ray")
    assert os.listdir(tmp_path) == []
