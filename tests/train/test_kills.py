"""Runs of the command that are killed at all kinds of moments end like the run that nobody killed, byte for byte.

A kill of each kind, and one for each loop: `python -m benchmarks.kills` does the same at many more random moments.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the benchmarks are no part of the installed package

from benchmarks.kills import MOMENTS, Outcome, Subject, kill_and_resume, make_subject

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills process groups the Linux way"),
]
SEED = int(os.environ.get("VIDEOMAE_TEST_SEED", random.randrange(10**6)))
STEPS = 40
PLANS = {
    "pretrain": [(signal.SIGTERM, "while a checkpoint is written"), (signal.SIGKILL, "at random")],
    "finetune": [(signal.SIGKILL, "while the model is written")],
}


@pytest.fixture(scope="module", params=PLANS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An uninterrupted run of each training command."""
    return make_subject(request.param, tmp_path_factory.mktemp("kills"), steps=STEPS)


def test_killed_runs_resume_to_the_same_bytes_and_leave_no_process(subject: Subject, tmp_path: Path) -> None:
    draw = random.Random(SEED)
    outcomes: list[tuple[signal.Signals, Outcome]] = []
    for index, (number, name) in enumerate(PLANS[subject.subcommand]):
        group = number == signal.SIGTERM or subject.subcommand == "finetune"  # or the main process alone
        fraction = draw.uniform(0.1, 0.95)
        moment = MOMENTS.get(name, fraction)
        title = f"{name} {fraction:.3f}" if name == "at random" else name
        one = kill_and_resume(subject, tmp_path / f"run-{index}", number, moment, name=title, group=group)
        print(f"seed {SEED}: {subject.subcommand} {number.name} {one}")  # pytest shows it where the test fails
        outcomes.append((number, one))
    for number, one in outcomes:
        assert one.differing == (), one
        assert one.left_over == 0, one
        if one.phase != "finished":
            assert one.status in ({-9} if number == signal.SIGKILL else {143, -15}), one
