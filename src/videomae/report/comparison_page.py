"""Training runs side by side: curves over the same axes, and in what settings, versions and results they differ.

Settings and versions that all runs share are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.engine.progress import flops_text
from videomae.errors import ConfigError
from videomae.report.figures import Curve, loss_curves
from videomae.report.made_with import made_with_facts
from videomae.report.page import (
    Block,
    Chart,
    Facts,
    Section,
    Table,
    Text,
    flat_settings,
    render_report,
    shown,
    write_report,
)
from videomae.report.runs import Run, RunSummary, read_run, summarize
from videomae.report.sections import points, thinned

NOT_KNOWN = "not recorded"
Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Comparison:
    """Two or more runs."""

    names: tuple[str, ...]
    """What they are called here: names of their folders, or whole paths where these are equal."""
    runs: tuple[Run, ...]
    """In the order in which they were given."""
    summaries: tuple[RunSummary, ...]
    """Of each."""
    settings: Rows
    """Name of a setting that differs, and its value in each run."""
    made_with: Rows
    """The same for versions, commits and machines, of the last start of each."""

    def figures(self) -> Rows:
        """Return names of figures and their values in each run as text; a figure that no run has is left out."""
        rows: list[tuple[str, Sequence[object]]] = [
            ("state", [_state(one) for one in self.summaries]),
            ("kind", [one.kind for one in self.summaries]),
            ("recipe", [one.recipe for one in self.summaries]),
            ("resumed", [one.resumes or None for one in self.summaries]),
            ("steps", [one.steps for one in self.summaries]),
            ("last loss", [one.last_loss for one in self.summaries]),
            ("best loss", [one.best_loss for one in self.summaries]),
            ("held-out loss", [one.held_out_loss for one in self.summaries]),
            ("best held-out loss", [one.best_held_out_loss for one in self.summaries]),
            ("top-1 accuracy", [_percent(one.top1, 2) for one in self.summaries]),
            ("score", [one.score if one.top1 is None else None for one in self.summaries]),
            ("clips/s", [one.clips_per_second for one in self.summaries]),
            ("operations", [_operations(one) for one in self.summaries]),
        ]
        return [
            (name, *("-" if value is None else shown(value) for value in values))
            for name, values in rows
            if any(value is not None for value in values)
        ]


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Read runs and find what differs.

    Raises:
        ConfigError: If there are fewer than two, or one is given twice.
        RunError: If one is no run.
    """
    if len(paths) < 2:
        raise ConfigError(f"{len(paths)} run is given to compare: give two or more run folders")
    whole = [path.resolve() for path in paths]
    for number, path in enumerate(whole):
        if path in whole[:number]:
            raise ConfigError(f"{paths[number]} is given twice: give different runs")
    runs = tuple(read_run(path) for path in paths)
    settings = [{name: shown(value) for name, value in flat_settings(run.recipe).items()} for run in runs]
    made_with = [_made_with(run) for run in runs]
    summaries = tuple(summarize(run) for run in runs)
    return Comparison(
        names=_names(paths),
        runs=runs,
        summaries=summaries,
        settings=_differences(settings, [one.kind for one in summaries], missing="-"),
        made_with=_differences(made_with, [None for _ in runs], missing=NOT_KNOWN),
    )


def write_comparison_page(path: Path, comparison: Comparison) -> None:
    """Write the page.

    Raises:
        RunError: If it cannot be written.
    """
    names = comparison.names
    title = (
        f"Training runs {', '.join(names[:-1])} and {names[-1]}" if len(names) <= 3 else f"{len(names)} training runs"
    )
    write_report(path, render_report(title, comparison_sections(comparison)))


def comparison_sections(comparison: Comparison) -> list[Section]:
    """Return the sections of the page: figures, curves, differences."""
    columns = ("", *comparison.names)
    figures: list[Block] = [Table(columns, comparison.figures())]
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        figures += [Text(f"{name}: {problem}", is_warning=True) for problem in run.problems]
    sections = [Section("Figures", figures)]
    curves = _curve_blocks(comparison)
    if curves:
        sections.append(Section("Curves", curves))
    differing: list[Block] = []
    for rows, caption, same in (
        (comparison.settings, "Settings that differ", "All settings are the same."),
        (comparison.made_with, "Versions, commits and machines that differ", "Versions and machines are the same."),
    ):
        differing.append(Table(columns, rows, caption) if rows else Text(same))
    commands = {
        name: one.command for name, one in zip(comparison.names, comparison.summaries, strict=True) if one.command
    }
    if commands:
        differing.append(Facts(commands, "Commands"))
    return [*sections, Section("What differs", differing)]


def _curve_blocks(comparison: Comparison) -> list[Block]:
    """Return the charts, each of all runs that have its numbers; losses of each kind of run apart."""
    blocks: list[Block] = []
    kinds = list(dict.fromkeys(one.kind for one in comparison.summaries))
    empty = [
        name for name, run in zip(comparison.names, comparison.runs, strict=True) if not points(run.metrics, "lr")[0]
    ]
    if empty:
        blocks.append(Text(f"Without a step so far, and without curves: {', '.join(empty)}."))
    for kind in kinds:
        of_kind = [one.kind == kind for one in comparison.summaries]
        label = "training loss" if len(kinds) == 1 else f"loss of {kind or 'unknown kind'}"
        caption = "Of single steps; in a long run the mean of neighboring ones."
        blocks += _chart(comparison, [run.metrics for run in comparison.runs], "loss", label, caption, of_kind)
    monitored = [run.monitor for run in comparison.runs]
    blocks += _chart(comparison, monitored, "held_out_loss", "held-out loss", "Measured by the monitor.")
    validated = [[one for one in run.metrics if "validation" in one] for run in comparison.runs]
    is_choice = all("top1" in one["validation"] for records in validated for one in records)
    label = "validation top-1 accuracy" if is_choice else "validation score"
    blocks += _chart(comparison, validated, "score", label, "Measured during training.")
    metrics = [run.metrics for run in comparison.runs]
    blocks += _chart(comparison, metrics, "lr", "learning rate")
    blocks += _chart(comparison, metrics, "clips_per_second", "clips/s", "Of a minute each, noted once a minute.")
    return blocks


def _chart(
    comparison: Comparison,
    records: Sequence[Sequence[Mapping[str, Any]]],
    key: str,
    label: str,
    caption: str = "",
    chosen: Sequence[bool] | None = None,
) -> list[Block]:
    """Return a chart of a number in the records of each run; nothing where no run has it."""
    curves = []
    for number, name in enumerate(comparison.names):
        steps, values = points(records[number], key)
        if steps and (chosen is None or chosen[number]):
            curves.append(Curve(name, *thinned(steps, values), place=number))
    return [Chart(loss_curves(curves, y_label=label), caption)] if curves else []


def _made_with(run: Run) -> dict[str, str]:
    """Return what the last start of a run was made with; of runs of older versions what their history says."""
    if run.starts:
        return made_with_facts(run.starts[-1])
    last = run.history[-1] if run.history else {}
    return {name: str(last[f"{name}_version"]) for name in ("videomae", "torch") if f"{name}_version" in last}


def _differences(runs: Sequence[Mapping[str, str]], kinds: Sequence[str | None], *, missing: str) -> Rows:
    """Return the names whose values are not the same in all, in the order in which they come.

    A name that no run of a kind has is compared among the others alone: it belongs to their kind.
    """
    rows: Rows = []
    for name in dict.fromkeys(name for run in runs for name in run):
        having = {kind for run, kind in zip(runs, kinds, strict=True) if name in run}
        compared = {run.get(name, missing) for run, kind in zip(runs, kinds, strict=True) if kind in having}
        if len(compared) > 1:
            rows.append((name, *(run.get(name, missing) for run in runs)))
    return rows


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    names = [path.resolve().name for path in paths]
    return tuple(str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True))


def _state(summary: RunSummary) -> str:
    return f"{summary.state}: {summary.error}" if summary.error else summary.state


def _operations(summary: RunSummary) -> str | None:
    flops, fraction = summary.flops_per_second, summary.peak_fraction
    return None if flops is None else flops_text(flops, flops / fraction if fraction else None)


def _percent(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}%}"
