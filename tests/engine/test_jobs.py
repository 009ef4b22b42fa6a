"""Jobs in processes: a process that dies or hangs costs its job alone, and all end with the main one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from videomae.engine.interrupt import StopRequested
from videomae.engine.jobs import JobFailure, num_processors, running_jobs
from videomae.errors import ConfigError


def work(job: str) -> str:
    """Do what the job says; in a process of its own."""
    match job:
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(60)
        case "refuse":
            raise ConfigError("this job\nis refused")
        case "fail":
            raise ValueError("a mistake in the program")
    return job.upper()


def test_a_process_that_dies_or_hangs_costs_its_job_alone() -> None:
    jobs = ["a", "die", "b", "refuse", "hang", "c", "d"]
    limits = {"hang": 0.5}
    with running_jobs(work, jobs, workers=2, limit_seconds=lambda job: limits.get(job, 60.0)) as finished:
        found = dict(finished)
    assert found == {
        **{name: name.upper() for name in "abcd"},
        "die": JobFailure("the process that worked on it died (signal SIGSEGV)"),
        "refuse": JobFailure("this job is refused"),
        "hang": JobFailure("it took too long, the process was ended"),
    }


def test_other_errors_are_raised_and_the_processes_end() -> None:
    with pytest.raises(ValueError, match="a mistake"), running_jobs(work, ["fail", "hang"], workers=2) as finished:
        list(finished)
    assert [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())] == []


def test_no_jobs_start_no_process() -> None:
    with running_jobs(work, [], workers=3) as finished:
        assert list(finished) == []
    assert num_processors() >= 1


def end_after_the_first() -> None:
    """Send SIGTERM to this process when the first job is done."""
    with running_jobs(work, ["a", "hang"], workers=1) as finished:
        for _ in finished:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_the_block() -> None:
    with pytest.raises(StopRequested) as stop:
        end_after_the_first()
    assert stop.value.exit_status == 143


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from test_jobs import work
from videomae.engine.jobs import running_jobs
if __name__ == "__main__":
    with running_jobs(work, ["a", "hang", "hang"], workers=2) as finished:
        for job, result in finished:
            print(result, flush=True)
"""


@pytest.mark.slow
def test_the_processes_end_with_a_main_process_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=str(Path(__file__).parent)), encoding="utf-8")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        assert main.stdout.readline() == "A\n"
        children = psutil.Process(main.pid).children(recursive=True)
        assert len(children) >= 2
        main.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
