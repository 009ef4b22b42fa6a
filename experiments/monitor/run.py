"""Count what the monitor finds in planted failures and in healthy runs.

    python -m experiments.monitor.run planted --work WORK --seed 200 --out planted.json
    python -m experiments.monitor.run healthy --work WORK --seed 200 --out healthy.json

Planted runs stop after a tenth of their budget. Results are written after every run; runs that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from experiments.monitor.planted import FAILURES, Failure, overlapping_masks
from experiments.monitor.settings import HEALTHY, keep_frames, recipe, write_set
from videomae.engine.runlog import MetricsLog
from videomae.errors import RunError
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.monitor.history import MONITOR_FILE, read_history
from videomae.monitor.learning import LearningMonitor
from videomae.recipes.schema import PretrainRecipe
from videomae.train.pretrain import pretrain

EARLY = 0.1  # of the budget: until then a failure should be flagged
KINDS = ("procedural", "motion")
SETS = 2  # of each kind, for the healthy runs


class EarlyEnd(Exception):
    """The part of the budget that counts is spent."""


@contextmanager
def ended_early(steps: int) -> Iterator[None]:
    """End training after the last measurement within the first so many steps."""
    is_due = LearningMonitor.is_due

    def due(monitor: LearningMonitor, step: int) -> bool:
        if step > steps:
            raise EarlyEnd
        return is_due(monitor, step)

    with patch.object(LearningMonitor, "is_due", due):
        yield


def watched(
    settings: PretrainRecipe, out: Path, model: type[VideoMAEForPreTraining], *, early: bool
) -> dict[str, Any]:
    """Train, and return what the monitor said, with the time that it took."""
    begin, inside, depth = time.perf_counter(), 0.0, 0

    def timed(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal inside, depth
            entered, depth = time.process_time(), depth + 1
            try:
                return function(*arguments)
            finally:
                depth -= 1
                if not depth:
                    inside += time.process_time() - entered

        return call

    total = settings.schedule.steps or 0
    used = time.process_time()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        names = ("start", "before_update", "measure")  # `start` measures too
        patches = [patch.object(LearningMonitor, name, timed(getattr(LearningMonitor, name))) for name in names]
        for one in patches:
            one.start()
        try:
            with ended_early(int(EARLY * total)) if early else nullcontext():
                pretrain(settings, out=out, overwrite=True, model_class=model)
        except (EarlyEnd, RunError):
            pass
        finally:
            for one in patches:
                one.stop()
    used = time.process_time() - used
    history = read_history(MetricsLog.read(out / MONITOR_FILE))
    assert history is not None
    first: dict[str, int] = {}
    lines: dict[str, str] = {}
    for measurement in history.measurements:
        for alarm in measurement.alarms:
            first.setdefault(alarm["name"], measurement.step)
            lines.setdefault(alarm["name"], alarm["evidence"])
    return {
        "alarms": first,
        "evidence": lines,
        "steps": total,
        "done": history.last.step,
        "loss": round(history.last.held_out_loss / history.beginning.trivial, 4),
        "baselines": {k: round(v / history.beginning.trivial, 4) for k, v in history.beginning.baselines.items()},
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(used, 2),
        "monitor_seconds": round(inside, 2),
    }


def planted(failure: Failure, work: Path, *, seed: int, number: int) -> dict[str, Any]:
    """Run one planted failure for a tenth of its budget."""
    kind = KINDS[number % 2]
    videos = write_set(work / f"{kind}-{seed}", kind, seed=seed)
    if failure.data is not None:
        changed = work / f"changed-{seed}-{number}"
        if not changed.exists():
            failure.data(videos, changed)
        videos = changed
    settings = recipe(videos, work, failure.words, seed=seed + number)
    with overlapping_masks() if failure.overlap else nullcontext():
        found = watched(settings, work / f"planted-{number}", failure.model, early=True)
    flagged = failure.alarm in found["alarms"]
    return {"name": failure.name, "videos": kind, "planted": failure.alarm, "flagged": flagged, **found}


def healthy(number: int, work: Path, *, seed: int) -> dict[str, Any]:
    """Run one healthy run to its end: every way of training on two sets of each kind."""
    name = list(HEALTHY)[number // (SETS * len(KINDS))]
    kind, which = KINDS[number % 2], number // 2 % SETS
    videos = write_set(work / f"{kind}-{seed + which}", kind, seed=seed + which)
    settings = recipe(videos, work, HEALTHY[name], seed=seed + 100 + number)
    return {
        "name": name,
        "videos": kind,
        **watched(settings, work / f"healthy-{number}", VideoMAEForPreTraining, early=False),
    }


def main() -> None:
    """Run all of one part that are not in the output yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("planted", "healthy"))
    parser.add_argument("--work", type=Path, required=True, help="folder for videos and runs")
    parser.add_argument("--seed", type=int, required=True, help="of videos and runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the runs; all without")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    keep_frames()
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    count = len(FAILURES) if options.part == "planted" else len(HEALTHY) * SETS * len(KINDS)
    for number in options.only if options.only is not None else range(count):
        if str(number) in results:
            continue
        if options.part == "planted":
            found = planted(FAILURES[number], options.work, seed=options.seed, number=number)
        else:
            found = healthy(number, options.work, seed=options.seed)
        results[str(number)] = found
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        shown = {name: found[name] for name in ("alarms", "loss", "done", "cpu_seconds", "monitor_seconds")}
        print(number, found["name"], found["videos"], "planted:", found.get("planted"), shown, flush=True)


if __name__ == "__main__":
    main()
