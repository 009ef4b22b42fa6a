"""The check of a collection: every file decoded in parallel, and what is wrong with it told.

`check_collection` returns the result; `write_check` puts it into files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomae.atomic import write_text_atomic
from videomae.collection.configs import CheckConfig
from videomae.collection.duplicates import find_duplicates
from videomae.collection.findings import (
    KINDS,
    Finding,
    Side,
    duplicate_findings,
    file_findings,
    leak_findings,
    split_sides,
)
from videomae.collection.measure import FileFacts, FileJob, Part, measure_file
from videomae.collection.rate import ReadRate, reading_rate
from videomae.collection.source import scan_collection
from videomae.data.manifest import Manifest, whole_video
from videomae.data.skip_list import write_skip_list
from videomae.engine.jobs import JobFailure, num_processors, running_jobs
from videomae.engine.progress import TrainingProgress
from videomae.errors import RunError
from videomae.video.addresses import video_path
from videomae.video.index_store import IndexStore
from videomae.video.opening import size_of
from videomae.video.sampling import ClipConfig

CHECK_FILE = "check.json"
SKIP_FILE = "skip.txt"
LIMIT_SECONDS = 300.0  # a file that takes longer, and longer than its size explains, hangs the decoder
LIMIT_BYTES_PER_SECOND = 100_000  # the slowest codecs decode several times this on one processor


@dataclass(frozen=True)
class CheckResult:
    """What the check of a collection found."""

    source: Path
    """What was checked."""
    against: Path | None
    """What it was compared with; None: nothing."""
    config: CheckConfig
    """How."""
    num_videos: int
    """Rows of the collection: videos, or parts of videos."""
    facts: dict[str, FileFacts]
    """By relative path of the file."""
    findings: tuple[Finding, ...]
    """In the order of `KINDS`, then by path."""
    class_counts: dict[str, dict[str, int]]
    """Rows of each class in each split, `all` where there are no splits; empty where there are no labels."""
    rate: ReadRate | None
    """None where nothing could be read."""
    num_against: tuple[int, int] = (0, 0)
    """Files of the collection compared with, and how many of them could not be read."""

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that was found."""
        found = [one.kind for one in self.findings]
        return {kind: found.count(kind) for kind in KINDS if kind in found}

    @property
    def skipped(self) -> list[str]:
        """What goes on the skip list, sorted."""
        return sorted({name for one in self.findings for name in one.skip})

    @property
    def workers_needed(self) -> int | None:
        """Processes that the asked rate needs; None where none was asked or nothing could be read."""
        if self.config.clips_per_second is None or self.rate is None:
            return None
        return self.rate.workers_for(self.config.clips_per_second)


def check_collection(source: Path, *, against: Path | None = None, config: CheckConfig | None = None) -> CheckResult:
    """Decode all videos of a collection and find what is wrong with them.

    Args:
        source: A folder of videos, of class folders or with labels.csv, a manifest file, or one video.
        against: A collection that must not have a video or a group in common with it, such as the test videos.
        config: Lengths of clips, processes.

    Raises:
        ManifestError: If a source cannot be listed.
        StopRequested: After SIGTERM.
    """
    config = config or CheckConfig()
    source, against = video_path(source), None if against is None else video_path(against)
    manifest = scan_collection(source)
    other = None if against is None else scan_collection(against)
    facts = measure_files(_jobs([manifest] if other is None else [manifest, other]), workers=config.workers)
    side = Side(manifest, facts)
    ours = find_duplicates(facts[path] for path in side.rows)
    findings = [*file_findings(side, span=config.span), *duplicate_findings(side, ours)]
    parts = split_sides(side)
    if parts is not None:
        findings += leak_findings(*parts, ours.all, is_one=True)
    if other is not None:
        both = find_duplicates(facts.values()).all
        findings += leak_findings(side, Side(other, facts), both, is_one=False)
    readable = [row.source for row in manifest.rows if facts[row.path].fault is None]
    order = list(KINDS)
    theirs = [] if other is None else [facts[path] for path in {row.path for row in other.rows}]
    return CheckResult(
        source,
        against,
        config,
        len(manifest.rows),
        {manifest.relative_path(whole_video(rows[0])): facts[path] for path, rows in side.rows.items()},
        tuple(sorted(findings, key=lambda one: (order.index(one.kind), one.path))),
        _class_counts(manifest),
        reading_rate(readable, ClipConfig(config.num_frames, config.stride)),
        (len(theirs), sum(one.fault is not None for one in theirs)),
    )


def measure_files(jobs: Sequence[FileJob], *, workers: int | None) -> dict[Path, FileFacts]:
    """Decode files in parallel, with a progress line; a file that kills its process is described as unreadable."""
    found: dict[Path, FileFacts] = {}
    with (
        TrainingProgress("checking videos", total_steps=len(jobs), unit="videos") as progress,
        running_jobs(
            measure_file, jobs, workers=workers or num_processors(), limit_seconds=_limit_seconds
        ) as finished,
    ):
        for job, result in finished:
            if isinstance(result, JobFailure):
                result = FileFacts(job.path, 0, fault="unreadable", reason=f"{job.path}: {result.reason}")
            found[job.path] = result
            progress.update(len(found), num_clips=1)
    return {job.path: found[job.path] for job in jobs}


def write_check(result: CheckResult, folder: Path) -> list[Path]:
    """Write `check.json` and `skip.txt` into a folder, which is made; returns their paths.

    Raises:
        RunError: If they cannot be written.
    """
    try:
        write_text_atomic(folder / CHECK_FILE, json.dumps(check_dict(result), indent=1, ensure_ascii=False) + "\n")
        write_skip_list(folder / SKIP_FILE, result.skipped)
    except (OSError, UnicodeEncodeError) as error:
        raise RunError(f"cannot write the result of the check into {folder}: {error}") from None
    return [folder / CHECK_FILE, folder / SKIP_FILE]


def check_dict(result: CheckResult) -> dict[str, Any]:
    """Return the result as plain JSON values."""
    rate = result.rate
    return {
        "source": str(result.source),
        "against": None if result.against is None else str(result.against),
        "num_frames": result.config.num_frames,
        "stride": result.config.stride,
        "videos": result.num_videos,
        "files": len(result.facts),
        "counts": result.counts,
        "findings": [
            {"kind": one.kind, "path": one.path, "what": one.what, "fix": one.fix, "others": list(one.others)}
            for one in result.findings
        ],
        "skip": result.skipped,
        "classes": result.class_counts,
        "reading": None if rate is None else {"clips_per_second": rate.clips_per_second, "clips": rate.num_clips},
        "workers_needed": result.workers_needed,
        "facts": {name: _facts_dict(one) for name, one in result.facts.items()},
    }


def _facts_dict(facts: FileFacts) -> dict[str, Any]:
    plain: dict[str, Any] = {"bytes": facts.size_bytes, "sha256": facts.digest}
    if facts.fault is not None or facts.info is None:
        return plain | {"fault": facts.fault}
    info = facts.info
    return plain | {
        "frames": facts.num_frames,
        "seconds": round(facts.seconds, 3),
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "audio": info.has_audio,
    }


def _jobs(manifests: Iterable[Manifest]) -> list[FileJob]:
    """Return a job for each file, in the order of the rows."""
    parts: dict[Path, list[Part]] = {}
    stores: dict[Path, IndexStore | None] = {}
    for manifest in manifests:
        store = manifest.index_store()
        for row in manifest.rows:
            part = (row.start_seconds, row.end_seconds)
            stores.setdefault(row.path, store)
            parts.setdefault(row.path, []).extend([part] if part != (None, None) else [])
    return [FileJob(path, tuple(dict.fromkeys(found)), stores[path]) for path, found in parts.items()]


def _limit_seconds(job: FileJob) -> float:
    return LIMIT_SECONDS + max(size_of(job.path, ask=True), 0) / LIMIT_BYTES_PER_SECOND


def _class_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    if not manifest.classes:
        return {}
    splits = [name for name in ("train", "val", "test") if any(row.split == name for row in manifest.rows)]
    if any(row.split is None for row in manifest.rows):
        splits.append("without split" if splits else "all")
    counts = {name: dict.fromkeys(splits, 0) for name in manifest.classes}
    for row in manifest.rows:
        split = row.split or splits[-1]
        for label in row.labels or (() if row.label is None else (row.label,)):
            counts[manifest.classes[label]][split] += 1
    return counts
