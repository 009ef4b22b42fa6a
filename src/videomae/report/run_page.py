"""The page of a training run: what its folder holds, drawn."""

from __future__ import annotations

from pathlib import Path

from videomae.engine.environment import read_environments
from videomae.engine.runlog import HISTORY_FILE, MetricsLog, RunFolder
from videomae.evaluation.results import EVALUATION_FILE, load_evaluation
from videomae.monitor.history import MONITOR_FILE
from videomae.recipes.schema import RECIPE_FILE, read_recipe_file
from videomae.report.evaluation_page import outcome_section
from videomae.report.made_with import made_with_blocks
from videomae.report.page import (
    Block,
    Facts,
    Section,
    Table,
    Text,
    flat_settings,
    render_report,
    versions,
    write_report,
)
from videomae.report.sections import monitor_section, training_section
from videomae.wording import counted

REPORT_FILE = "report.html"


def write_run_page(folder: Path) -> Path:
    """Write the page of a run into its folder; returns its path.

    Raises:
        VideoMAEError: If a file of the run cannot be read, or the page not be written.
    """
    path = folder / REPORT_FILE
    write_report(path, render_report(f"Training run {folder.resolve().name}", run_sections(folder)))
    return path


def run_sections(folder: Path) -> list[Section]:
    """Return the sections of the page: results first, then the way there, then what it was made with."""
    records = MetricsLog.read(RunFolder(folder).metrics)
    sections: list[Section] = []
    if (folder / EVALUATION_FILE).is_file():
        sections.append(outcome_section(load_evaluation(folder / EVALUATION_FILE), title="Validation"))
    if (folder / MONITOR_FILE).is_file():
        sections.append(monitor_section(MetricsLog.read(folder / MONITOR_FILE)))
    if any("loss" in one for one in records):
        sections.append(training_section(records))
    skipped = [str(one["step"]) for one in records if "skipped" in one]
    notes: list[Block] = []
    if skipped:
        steps = counted(len(skipped), "step")
        text = f"Skipped {steps} because loss or gradient was not finite: {', '.join(skipped[:20])}"
        notes.append(Text(text, is_warning=True))
    history = MetricsLog.read(folder / HISTORY_FILE) if (folder / HISTORY_FILE).is_file() else []
    rows = [
        (
            str(one.get("time", "")),
            str(one.get("event", "")),
            one.get("step", 0),
            one.get("error")
            or ", ".join(f"{change['name']} {change['old']} to {change['new']}" for change in one.get("changes", [])),
            f"videomae {one.get('videomae_version', '?')}, torch {one.get('torch_version', '?')}",
        )
        for one in history
    ]
    if rows:
        notes.append(Table(("time", "what", "after step", "changed, or why", "with"), rows))
    environment = made_with_blocks(read_environments(folder)) or [versions()]
    settings = Facts(flat_settings(read_recipe_file(folder / RECIPE_FILE)), caption=RECIPE_FILE)
    return [*sections, Section("How it was made", [*notes, *environment, settings])]
