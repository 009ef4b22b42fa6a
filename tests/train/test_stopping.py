"""Runs as real processes that are asked to stop: by a scheduler, by Ctrl-C, in a long step, in the evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.engine.runlog import MetricsLog
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, recipe_to_yaml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals process groups the Linux way"),
]

Recipes = Callable[..., PretrainRecipe | FinetuneRecipe]
WAIT_SECONDS = 300.0

# Training whose model waits for ever, after a word on standard output, where the second argument says.
WAITING = """
import os, signal, sys
from pathlib import Path
from videomae.cli import main
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.recipes.schema import FinetuneRecipe, load_recipe
from videomae.train.finetune import finetune

recipe, where, run = sys.argv[1:]
never, _ = os.pipe()

class Waiting(VideoMAEForVideoClassification):
    num_calls = 0

    def forward(self, *arguments, **settings):
        Waiting.num_calls += 1
        if self.training:
            assert "sklearn" not in sys.modules, "2 s of every start, for what is computed at the end"
        if (where == "step" and Waiting.num_calls == 4) or (where == "evaluation" and not self.training):
            print("waiting", flush=True)
            os.read(never, 1)
        return super().forward(*arguments, **settings)

try:
    finetune(load_recipe(FinetuneRecipe, recipe), out=Path(run), model_class=Waiting)
except KeyboardInterrupt as stop:
    sys.exit(stop.exit_status)
"""


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def group_members(group: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(") ")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(number) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def last_step(run: Path) -> int:
    return max(record["step"] for record in MetricsLog.read(run / "metrics.jsonl"))


@pytest.mark.parametrize(
    ("subcommand", "number"),
    [("pretrain", signal.SIGINT), ("pretrain", signal.SIGTERM), ("finetune", signal.SIGTERM)],
)
def test_a_signal_to_the_process_group_saves_the_run_and_says_how_to_resume(
    subcommand: str, number: signal.Signals, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipes: Recipes = request.getfixturevalue(f"{subcommand}_recipe")
    file, run = tmp_path / "recipe.yaml", tmp_path / "my run"
    words = ("--schedule.steps", "100000", "--loop.workers", "2", "--loop.checkpoint_steps", "100000")
    file.write_text(recipe_to_yaml(recipes(*words)))
    process = start("-m", "videomae", subcommand, "--config", str(file), "--out", str(run))
    assert process.stderr is not None
    for line in process.stderr:  # the first line of progress comes with the first step
        if "step 1/100000" in line:
            break
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 128 + number, errors
    step = last_step(run)
    assert f"saved at step {step}; resume with: videomae {subcommand} --resume --out '{run}'" in errors
    assert "Traceback" not in errors
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"checkpoint-{step:08d}.pt"]
    assert group_members(process.pid) == []


@pytest.mark.parametrize(("where", "step"), [("step", 3), ("evaluation", 6)])
def test_a_signal_in_a_step_or_an_evaluation_that_takes_too_long_leaves_it_at_once(
    where: str, step: int, finetune_recipe: Recipes, tmp_path: Path
) -> None:
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(recipe_to_yaml(finetune_recipe("--loop.workers", "1", "--evaluation.workers", "1")))
    process = start("-c", WAITING, str(file), where, str(run))
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "waiting\n":
        assert line, process.communicate(timeout=WAIT_SECONDS)[1]
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 143, errors
    assert f"saved at step {step}; resume with: videomae finetune --resume --out {run}" in errors
    assert last_step(run) == step
    assert group_members(process.pid) == []
