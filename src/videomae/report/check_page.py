"""The page of a checked collection: what `check.json` says, as tables, and copies side by side."""

from __future__ import annotations

import os
from pathlib import Path

from videomae.collection.check import SKIP_FILE, CheckResult
from videomae.collection.findings import KINDS, Finding
from videomae.collection.measure import FileFacts
from videomae.collection.summary import rate_lines
from videomae.report.page import (
    Block,
    Command,
    Facts,
    Players,
    Section,
    Table,
    Text,
    render_report,
    versions,
    write_report,
)
from videomae.report.search_page import video_player
from videomae.wording import counted

PAGE_FILE = "check.html"
MAX_ROWS = 200  # of one kind on the page; check.json has all
PICTURED = ("near_duplicate", "label_conflict", "leak")  # kinds that somebody has to look at
MAX_PICTURED = 20  # findings of one kind with pictures
MAX_SIDE_BY_SIDE = 4  # videos of one finding


def write_check_page(folder: Path, result: CheckResult) -> Path:
    """Write the page into a folder; returns its path.

    Raises:
        RunError: If it cannot be written.
    """
    count = len(result.findings)
    summary = f"{counted(result.num_videos, 'video')}, {counted(count, 'finding') if count else 'no findings'}."
    html = render_report("Check of a collection", check_sections(result, folder), summary=summary)
    write_report(folder / PAGE_FILE, html)
    return folder / PAGE_FILE


def check_sections(result: CheckResult, folder: Path) -> list[Section]:
    """Return the sections: findings by kind, each kind, classes, reading, how it was checked."""
    sections = [Section("Findings", _findings(result, folder)), *_kinds(result, folder)]
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
        caption = f"Training leaves out {counted(len(result.skipped), 'video')}, those of the skip list, with"
        blocks.append(Command(command, caption=caption))
    return blocks


def _kinds(result: CheckResult, folder: Path) -> list[Section]:
    sections = []
    for kind, count in result.counts.items():
        found = [one for one in result.findings if one.kind == kind]
        rows = [(one.path, one.what) for one in found[:MAX_ROWS]]
        caption = f"The first {MAX_ROWS} of {count}; check.json has all" if count > MAX_ROWS else ""
        heading = "group" if kind == "group_leak" else "video"
        title = f"{KINDS[kind].title[:1].upper()}{KINDS[kind].title[1:]}: {count}"
        blocks: list[Block] = [Table((heading, "what"), rows, caption=caption)]
        if kind in PICTURED:
            blocks += [_side_by_side(one, result, folder) for one in found[:MAX_PICTURED]]
        if kind in PICTURED and count > MAX_PICTURED:
            blocks.append(Text(f"The first {MAX_PICTURED} of {count} with their pictures."))
        sections.append(Section(title, blocks))
    return sections


def _side_by_side(finding: Finding, result: CheckResult, folder: Path) -> Players:
    """Return the videos of a finding, each with the frame in its middle; those of another collection are left out."""
    names = [name for name in (finding.path, *finding.others) if name in result.facts]
    shown = [result.facts[name] for name in names[:MAX_SIDE_BY_SIDE]]
    players = [
        video_player(os.fspath(one.path), 0.0, one.seconds, folder, note=_quality(one))
        for one in shown
        if one.fault is None
    ]
    more = f", the first {MAX_SIDE_BY_SIDE} of them" if len(names) > MAX_SIDE_BY_SIDE else ""
    return Players(players, caption=f"{', '.join(names)}{more}")


def _quality(facts: FileFacts) -> str:
    """Return what tells which of two copies is the better one."""
    info = facts.info
    size = "" if info is None else f"{info.width}x{info.height} {info.codec}, "
    return f"{size}{facts.size_bytes / 1e6:.2f} MB"


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
        "size": f"{sum(one.size_bytes for one in facts) / 1e6:,.1f} MB",
        "length": f"{sum(one.seconds for one in readable) / 3600:,.2f} hours",
        "codecs": ", ".join(codecs) or "none",
        "clip": f"{result.config.num_frames} frames at stride {result.config.stride}",
    })  # fmt: skip
