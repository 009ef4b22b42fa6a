"""Runs of the command that are killed at all kinds of moments end like the run that nobody killed, byte for byte.

One of each kind, at the worst moment of a loop: `python -m benchmarks.kills` does the same at many random moments.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the benchmarks are no part of the installed package

from benchmarks.kills import MOMENTS, Subject, kill_and_resume, make_subject

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills process groups the Linux way"),
]
STEPS = 16  # the second checkpoint is the last but two
PLANS = {
    "pretrain": (signal.SIGTERM, "while a checkpoint is written"),
    "finetune": (signal.SIGKILL, "while the model is written"),
}


@pytest.fixture(scope="module", params=PLANS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An uninterrupted run of each training command."""
    return make_subject(request.param, tmp_path_factory.mktemp("kills"), steps=STEPS)


def test_killed_runs_resume_to_the_same_bytes_and_leave_no_process(subject: Subject, tmp_path: Path) -> None:
    number, name = PLANS[subject.subcommand]
    one = kill_and_resume(subject, tmp_path / "run", number, MOMENTS[name], name=name, group=True)
    assert one.differing == (), one
    assert one.left_over == 0, one
    if one.phase != "finished":
        assert one.status in ({-9} if number == signal.SIGKILL else {143, -15}), one
