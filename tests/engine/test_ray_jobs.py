"""Jobs on a real local Ray: the contract of `engine.jobs`, and the same prepared files."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from videomae.cli import main
from videomae.engine.jobs import JobFailure
from videomae.engine.ray_jobs import jobs_on
from videomae.errors import ConfigError, VideoReadError


def work(job: str) -> str:
    """Do what the job says; in a process of Ray."""
    match job.partition(" ")[0]:
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "once":  # dies where it is the first to be there
            place = Path(job.partition(" ")[2])
            if not place.exists():
                place.write_bytes(b"")
                os.kill(os.getpid(), signal.SIGKILL)
            return "in the end"
        case "hang":
            time.sleep(60)
        case "refuse":
            raise VideoReadError("this job\nis refused")
        case "fail":
            raise ValueError("a mistake in the program")
    return job.upper()


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A local Ray of two processors."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'videomae[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))  # where its processes find `work`
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_process_that_dies_or_hangs_costs_its_job_alone(tmp_path: Path) -> None:
    once = f"once {tmp_path / 'been'}"
    limits = {"hang": 0.5}
    jobs = ["a", "die", "refuse", once, "hang", "b"]
    with jobs_on("ray", work, jobs, workers=2, limit_seconds=lambda job: limits.get(job, 60.0)) as finished:
        found = dict(finished)
    assert found == {
        "a": "A",
        "b": "B",
        "die": JobFailure("the process that worked on it died, 3 times"),
        "refuse": JobFailure("this job is refused"),
        "hang": JobFailure("it took too long, the process was ended"),
        once: "in the end",
    }
    start = time.monotonic()
    with (
        pytest.raises(ValueError, match="a mistake"),
        jobs_on("ray", work, ["fail", "hang", "hang"], workers=2) as finished,
    ):
        list(finished)
    assert time.monotonic() - start < 40, "what was running is ended, not waited for"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_ray_prepares_the_files_that_this_machine_does(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v").mkdir()
    for path in sorted(labelled_folder.rglob("*.mp4"))[:3]:
        (tmp_path / "v" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "v" / "bad.mp4").write_bytes(b"no video")
    found = {}
    for engine in ("ray", "local"):
        out = tmp_path / engine
        words = ["data", "prepare", str(tmp_path / "v"), str(out), "--short_side", "16", "--workers", "2"]
        assert main([*words, "--engine", engine]) == 1
        assert "left out: bad.mp4: cannot be read as video" in capsys.readouterr().out
        found[engine] = {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file() and not path.relative_to(out).as_posix().startswith(".")
        }
    assert found["ray"] == found["local"]
    assert "manifest.csv" in found["ray"]


def test_the_engine_ray_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ConfigError, match=r"needs Ray, which is not installed: pip install 'videomae\[ray\]'"),
        jobs_on("ray", work, ["a"]) as finished,
    ):
        list(finished)
