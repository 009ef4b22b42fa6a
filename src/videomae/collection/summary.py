"""The result of a check as tables for a terminal."""

from __future__ import annotations

from rich.table import Table

from videomae.collection.check import CheckResult
from videomae.collection.findings import KINDS
from videomae.wording import counted

MAX_SHOWN = 20  # findings on the terminal; the files have all


def check_tables(result: CheckResult) -> list[Table]:
    """Return the findings by kind, and the first of each kind by name."""
    if not result.findings:
        return []
    counts = Table(box=None, pad_edge=False)
    counts.add_column("found", no_wrap=True)
    counts.add_column("count", justify="right")
    counts.add_column("what to do")
    for kind, count in result.counts.items():
        counts.add_row(KINDS[kind].title, str(count), KINDS[kind].fix)
    each = max(MAX_SHOWN // len(result.counts), 1)
    examples = Table(box=None, pad_edge=False)
    examples.add_column("found", no_wrap=True)
    examples.add_column("video", overflow="fold")
    examples.add_column("what", overflow="fold")
    for kind in result.counts:
        for one in [found for found in result.findings if found.kind == kind][:each]:
            examples.add_row(KINDS[kind].title, one.path, one.what)
    return [counts, examples]


def check_lines(result: CheckResult) -> list[str]:
    """Return the rest of the result as lines: videos, classes, reading rate, workers."""
    lines = [f"{counted(result.num_videos, 'video')} in {result.source}; {len(result.skipped)} on the skip list"]
    if result.against is not None:
        files, bad = result.num_against
        lines.append(f"compared with {files} files of {result.against}, of which {bad} cannot be read")
    classes = list(result.class_counts.items())
    for name, splits in classes[:MAX_SHOWN]:
        lines.append(f"class {name}: " + ", ".join(f"{split} {count}" for split, count in splits.items()))
    if len(classes) > MAX_SHOWN:
        lines.append(f"and {len(classes) - MAX_SHOWN} more classes, see check.json")
    return [*lines, *rate_lines(result)]


def rate_lines(result: CheckResult) -> list[str]:
    """Return what was timed: how fast clips are read, and how many workers a rate of training needs."""
    rate, wanted = result.rate, result.config.clips_per_second
    if rate is None:
        return ["no clip could be read, so nothing is said of the reading rate"]
    clip = f"{result.config.num_frames} frames at stride {result.config.stride}"
    lines = [f"one process reads {rate.clips_per_second:.1f} clips/s ({clip}; {rate.num_clips} were timed)"]
    if wanted is not None:
        lines.append(
            f"{wanted:g} clips/s need {result.workers_needed} workers, each with a processor; videomae data prepare "
            "makes reading faster"
        )
    return lines
