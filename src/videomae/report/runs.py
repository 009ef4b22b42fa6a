"""The training runs below a folder: what each is, how far it is, and how it has ended.

Everything is read from the run folders, and nothing is written there. What cannot be read of a run is told beside
what can.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from videomae.engine.environment import read_environments
from videomae.engine.runlog import HISTORY_FILE, MetricsLog, RunFolder, is_live, is_run
from videomae.errors import RunError, VideoMAEError
from videomae.monitor.history import MONITOR_FILE
from videomae.recipes.schema import RECIPE_FILE, read_recipe_file
from videomae.sharing.record import load_record
from videomae.weights.sources import RUN_FOLDER

T = TypeVar("T")
State = Literal["running", "finished", "stopped", "failed"]
# A part of the recipe that only runs of the kind have.
KINDS = {"mask": "pretrain", "head": "finetune"}
ENDS = ("finished", "stopped", "failed")  # events of the history
MAX_COMMAND = 48  # letters of a command line in a table


@dataclass(frozen=True)
class Run:
    """What the folder of a run holds."""

    path: Path
    """The folder, as it was found."""
    recipe: Mapping[str, Any]
    """Every setting as plain values; empty where it was not written yet."""
    history: Sequence[Mapping[str, Any]]
    """When it was started, resumed and ended; empty for runs of versions that kept none."""
    starts: Sequence[Mapping[str, Any]]
    """The environment of each start; likewise."""
    metrics: Sequence[Mapping[str, Any]]
    """Records of steps, validations and the evaluation."""
    monitor: Sequence[Mapping[str, Any]]
    """Lines of the monitor's file."""
    problems: Sequence[str]
    """What could not be read, and why."""


@dataclass(frozen=True)
class RunSummary:
    """A run in figures; None where one is not known."""

    folder: str
    kind: str | None
    """pretrain or finetune."""
    recipe: str | None
    """Name of the recipe that it was started with."""
    command: str | None
    """The command line that started it."""
    state: State
    """running: a process owns the folder. stopped: by a signal, or killed; it can be resumed, as can a failed one."""
    error: str | None
    """What ended a failed run."""
    started: str | None
    """ISO 8601."""
    ended: str | None
    """Likewise; None while it is running."""
    resumes: int
    """How often it was resumed."""
    steps: int
    """Done so far."""
    total_steps: int | None
    last_loss: float | None
    """Of a single step, as the best one."""
    best_loss: float | None
    held_out_loss: float | None
    """The last that the monitor measured; the best one below."""
    best_held_out_loss: float | None
    top1: float | None
    """Accuracy in [0, 1]: of the evaluation after the last step, else of the best validation so far."""
    score: float | None
    """The figure that models of its kind are compared by, from the same evaluation; the larger the better."""
    clips_per_second: float | None
    """Of the last minute while it is running, else the mean since it was last started."""
    flops_per_second: float | None
    """Of the last minute that was noted, as the next."""
    peak_fraction: float | None
    """Of the measured matrix multiplication peak of its devices."""
    problems: Sequence[str]
    """What could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values; numbers that are not finite are left out, as None."""
        values = {name: _json_value(value) for name, value in dataclasses.asdict(self).items()}
        return {**values, "problems": list(self.problems)}


def find_runs(folder: Path, on_problem: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Return the run folders below a folder, it included, sorted by name; hidden folders and links are not searched.

    Args:
        folder: Where to look.
        on_problem: Called with a line for each folder that cannot be read.

    Raises:
        RunError: If there is no such folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise RunError(f"{folder} {what}: give a folder with runs below it")
    found = []

    def tell(error: OSError) -> None:
        on_problem(f"{error.filename} cannot be read ({error.strerror or error}): runs below it are not listed")

    for place, folders, _ in os.walk(folder, onerror=tell):
        if is_run(Path(place)):
            found.append(Path(place))
            folders.clear()  # a run holds no other
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(found)


def read_run(path: Path) -> Run:
    """Read the files of a run, also of one that is going on or was killed.

    Raises:
        RunError: If the folder is no run.
    """
    if not is_run(path):
        if not path.exists():
            raise RunError(f"{path} does not exist: check the path; videomae runs list shows the runs below a folder")
        inside = [str(one) for one in find_runs(path)] if path.is_dir() else []
        hint = f"name one of the runs below it: {', '.join(inside[:8])}" if inside else "give a run's --out folder"
        raise RunError(f"{path} is not a run of this package: {hint}")
    problems: list[str] = []

    def read(function: Callable[[Path], T], name: str, otherwise: T) -> T:
        try:
            return function(path / name) if (path / name).exists() else otherwise
        except VideoMAEError as error:
            problems.append(" ".join(str(error).split()))
            return otherwise

    nothing: list[dict[str, Any]] = []
    return Run(
        path=path,
        recipe=read(read_recipe_file, RECIPE_FILE, {}),
        history=read(MetricsLog.read, HISTORY_FILE, nothing),
        starts=read_environments(path),
        metrics=read(MetricsLog.read, RunFolder(path).metrics.name, nothing),
        monitor=read(MetricsLog.read, MONITOR_FILE, nothing),
        problems=problems,
    )


def summarize(run: Run) -> RunSummary:
    """Return a run in figures."""
    steps = [one for one in run.metrics if "clips" in one]
    losses = finite(steps, "loss")
    held_out = finite(run.monitor, "held_out_loss")
    state, error = _state(run)
    ends = [one for one in run.history if one.get("event") in ENDS]
    noted = [one for one in steps if "clips_per_second" in one]
    means = [] if state == "running" else [one for one in ends if "clips_per_second" in one]
    evaluated = _evaluated(run.metrics)
    speed = finite([*noted, *means][-1:], "clips_per_second")
    started = [one for one in run.history if one.get("event") == "started"]
    return RunSummary(
        folder=str(run.path),
        kind=next((kind for part, kind in KINDS.items() if part in run.recipe), None),
        recipe=_first(run.starts, "recipe"),
        command=_first(run.starts, "command"),
        state=state,
        error=error,
        started=_first(started, "time"),
        ended=None if state == "running" else _ended(run, ends),
        resumes=sum(1 for one in run.history if one.get("event") == "resumed"),
        steps=max((int(one["step"]) for one in steps), default=0),
        total_steps=_first(list(reversed(run.starts)), "total_steps"),
        last_loss=losses[-1] if losses else None,
        best_loss=min(losses, default=None),
        held_out_loss=held_out[-1] if held_out else None,
        best_held_out_loss=min(held_out, default=None),
        top1=_number(evaluated, "top1"),
        score=_number(evaluated, "score"),
        clips_per_second=speed[0] if speed else None,
        flops_per_second=_number(noted[-1], "flops_per_second") if noted else None,
        peak_fraction=_number(noted[-1], "peak_fraction") if noted else None,
        problems=run.problems,
    )


def summary_table(summaries: Sequence[RunSummary]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and rows of text about runs."""
    columns = ("run", "kind", "state", "started", "ended", "steps", "loss", "best", "top-1", "clips/s", "recipe")
    rows: list[tuple[str, ...]] = []
    for one in summaries:
        of = "" if one.total_steps is None or one.state == "finished" else f"/{one.total_steps}"
        recipe = one.recipe or one.command or "-"
        rows.append(
            (
                one.folder,
                one.kind or "-",
                one.state + (" (damaged)" if one.problems else ""),
                _minute(one.started),
                _minute(one.ended),
                f"{one.steps}{of}",
                _figure(one.last_loss),
                _figure(one.best_loss),
                "-" if one.top1 is None else f"{one.top1:.1%}",
                _figure(one.clips_per_second, 3),
                recipe if len(recipe) <= MAX_COMMAND else recipe[: MAX_COMMAND - 3] + "...",
            )
        )
    return columns, rows


def finite(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return the finite numbers of a name in records."""
    values = (_number(record, name) for record in records)
    return [value for value in values if value is not None]


def _state(run: Run) -> tuple[State, str | None]:
    if is_live(run.path):
        return "running", None
    last = run.history[-1] if run.history else {}
    try:
        is_whole = load_record(run.path / RUN_FOLDER).training is not None
    except VideoMAEError:
        is_whole = False
    if is_whole and last.get("event") != "failed":
        return "finished", None
    return ("failed", str(last.get("error", ""))) if last.get("event") == "failed" else ("stopped", None)


def _ended(run: Run, ends: Sequence[Mapping[str, Any]]) -> str | None:
    """Return when a run ended: as it has told, else when it last wrote a number."""
    if ends and ends[-1] is run.history[-1]:
        time: str | None = ends[-1].get("time")
        return time
    try:
        seconds = RunFolder(run.path).metrics.stat().st_mtime
    except OSError:
        return None
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _evaluated(metrics: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the figures of the evaluation after the last step, else those of the best validation."""
    best: Mapping[str, Any] = {}
    for record in metrics:
        if isinstance(record.get("evaluation"), Mapping):
            return {"score": record["evaluation"].get("top1"), **record["evaluation"]}
        if isinstance(record.get("validation"), Mapping) and record.get("is_best", not best):
            best = {**record["validation"], "score": record.get("score")}
    return best


def _first(records: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((record[name] for record in records if record.get(name) is not None), None)


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and value is not None else None


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _minute(time: str | None) -> str:
    """Return an ISO time to the minute, without its zone."""
    return "-" if time is None else time[:16].replace("T", " ")
