"""The page of a checked collection: what `check.json` says, as tables."""

from __future__ import annotations

from pathlib import Path

from videomae.collection.check import SKIP_FILE, CheckResult
from videomae.collection.findings import KINDS
from videomae.collection.summary import rate_lines
from videomae.report.page import Block, Command, Facts, Section, Table, Text, render_report, versions, write_report

PAGE_FILE = "check.html"
MAX_ROWS = 200  # of one kind on the page; check.json has all


def write_check_page(folder: Path, result: CheckResult) -> Path:
    """Write the page into a folder; returns its path.

    Raises:
        RunError: If it cannot be written.
    """
    count = len(result.findings)
    summary = f"{result.num_videos} videos, {count or 'no'} finding{'' if count == 1 else 's'}."
    html = render_report("Check of a collection", check_sections(result, folder), summary=summary)
    write_report(folder / PAGE_FILE, html)
    return folder / PAGE_FILE


def check_sections(result: CheckResult, folder: Path) -> list[Section]:
    """Return the sections: findings by kind, each kind, classes, reading, how it was checked."""
    sections = [Section("Findings", _findings(result, folder)), *_kinds(result)]
    if result.class_counts:
        sections.append(Section("Classes", [_classes(result)]))
    return [
        *sections,
        Section("Reading", [Text(f"{line[:1].upper()}{line[1:]}.") for line in rate_lines(result)]),
        Section("How it was checked", [_facts(result), versions()]),
    ]


def _findings(result: CheckResult, folder: Path) -> list[Block]:
    if not result.findings:
        return [Text("Nothing is wrong: every video decodes from end to end, and none is there twice.")]
    rows = [(KINDS[kind].title, count, KINDS[kind].fix) for kind, count in result.counts.items()]
    blocks: list[Block] = [Table(("found", "count", "what to do"), rows)]
    if result.skipped:
        name = "finetune" if result.class_counts else "pretrain"
        command = ("videomae", name, str(result.source), "--data.skip", str(folder / SKIP_FILE), "--out", "RUN")
        caption = f"Training leaves out the {len(result.skipped)} videos of the skip list with"
        blocks.append(Command(command, caption=caption))
    return blocks


def _kinds(result: CheckResult) -> list[Section]:
    sections = []
    for kind, count in result.counts.items():
        found = [one for one in result.findings if one.kind == kind]
        rows = [(one.path, one.what) for one in found[:MAX_ROWS]]
        caption = f"The first {MAX_ROWS} of {count}; check.json has all" if count > MAX_ROWS else ""
        heading = "group" if kind == "group_leak" else "video"
        title = f"{KINDS[kind].title[:1].upper()}{KINDS[kind].title[1:]}: {count}"
        sections.append(Section(title, [Table((heading, "what"), rows, caption=caption)]))
    return sections


def _classes(result: CheckResult) -> Table:
    splits = list(next(iter(result.class_counts.values())))
    rows = [(name, *(counts[split] for split in splits)) for name, counts in result.class_counts.items()]
    total = [sum(counts[split] for counts in result.class_counts.values()) for split in splits]
    return Table(("class", *("videos" if split == "all" else split for split in splits)), [*rows, ("total", *total)])


def _facts(result: CheckResult) -> Facts:
    facts = list(result.facts.values())
    readable = [one for one in facts if one.fault is None]
    codecs = sorted({one.info.codec for one in readable if one.info is not None})
    return Facts({
        "source": result.source,
        **({} if result.against is None else {"against": result.against}),
        "files": len(facts),
        "gigabytes": sum(one.size_bytes for one in facts) / 1e9,
        "hours": sum(one.seconds for one in readable) / 3600,
        "codecs": ", ".join(codecs) or "none",
        "clip": f"{result.config.num_frames} frames at stride {result.config.stride}",
    })  # fmt: skip
