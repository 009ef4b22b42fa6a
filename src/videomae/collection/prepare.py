"""A collection encoded again for training, in parallel, resumable, or in shards on several machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videomae.collection.configs import PrepareConfig
from videomae.collection.prepare_state import Done, PrepareState, standing
from videomae.collection.prepared_manifest import MANIFEST_FILE, planned_targets, prepared_rows, write_prepared
from videomae.collection.quality import Quality, measure_quality
from videomae.collection.rate import ReadRate, reading_rate
from videomae.collection.source import scan_collection
from videomae.collection.transcode import PreparedPart, PrepareJob, prepare_file
from videomae.data.manifest import Manifest, whole_video
from videomae.engine.configs import JobEngine
from videomae.engine.jobs import JobFailure
from videomae.engine.progress import TrainingProgress
from videomae.engine.ray_jobs import jobs_on
from videomae.errors import ConfigError, RunError
from videomae.video.index_store import index_store
from videomae.video.opening import size_of, version_of
from videomae.video.sampling import ClipConfig

LIMIT_SECONDS = 600.0  # a video that takes longer, and longer than its size explains, hangs the decoder
LIMIT_BYTES_PER_SECOND = 20_000
MAX_NAMED = 20  # videos named on the terminal; .prepare/ has all


@dataclass(frozen=True)
class PrepareResult:
    """What was prepared."""

    manifest: Path | None
    """The manifest of the whole; None where other shards are not finished."""
    part: Path | None
    """The manifest of this shard; None without shards."""
    num_videos: int
    """Videos of the collection, or of the shard."""
    num_before: int
    """How many of them an earlier call had done."""
    failed: tuple[tuple[str, str], ...]
    """Relative path and reason of those that could not be read."""
    bytes_before: int
    """Size of the originals of those that were done."""
    bytes_after: int
    """Size of what was written of them."""
    rates: tuple[ReadRate | None, ReadRate | None]
    """How fast clips of the originals and of the prepared videos are read."""
    quality: Quality | None
    """None where nothing was written."""

    def lines(self) -> list[str]:
        """Return the result as text."""
        done = self.num_videos - len(self.failed)
        lines = [f"{done} of {self.num_videos} videos are prepared, {self.num_before} of them before this call"]
        lines += [f"left out: {name}: {reason}" for name, reason in self.failed[:MAX_NAMED]]
        if len(self.failed) > MAX_NAMED:
            lines.append(f"left out: {len(self.failed) - MAX_NAMED} more")
        if self.bytes_before:
            ratio = self.bytes_after / self.bytes_before
            lines.append(
                f"size: {self.bytes_before / 1e6:.1f} MB before, {self.bytes_after / 1e6:.1f} MB after ({ratio:.2f}x)"
            )
        before, after = self.rates
        if before is not None and after is not None:
            one, other = before.clips_per_second, after.clips_per_second
            lines.append(f"one process reads {one:.1f} clips/s before, {other:.1f} after ({other / one:.1f}x)")
        if self.quality is not None:
            quality = self.quality
            lines.append(
                f"PSNR of the luma: {quality.mean:.1f} dB on average, {quality.lowest:.1f} dB at the lowest "
                f"({quality.num_videos} videos)"
            )
        if self.part is not None:
            lines.append(f"manifest of this shard: {self.part}")
        if self.manifest is None:
            lines.append("other shards are not finished: the last one writes the manifest of the whole")
        else:
            lines.append(f"manifest: {self.manifest}")
        return lines


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Return (i, n) of `i/n`.

    Raises:
        ConfigError: If it is not that.
    """
    if text is None:
        return None
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise ConfigError(f"shard is {text!r}; it is i/n with i from 0 to n - 1, such as 0/4 to 3/4")
    return int(first), int(second)


def prepare_collection(
    source: Path,
    out: Path,
    *,
    config: PrepareConfig | None = None,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    engine: JobEngine = "local",
) -> PrepareResult:
    """Encode all videos of a collection for training, and write their manifest.

    What an earlier call with the same settings has done is kept, unless the original has changed since.

    Args:
        source: A folder of videos, of class folders or with labels.csv, a manifest file, or one video.
        out: Where to write; it may not hold other files.
        config: How to encode.
        workers: Videos at a time; None: one for each processor, of the cluster where it is one.
        shard: (i, n): do every n-th video only, beginning with the i-th; the last shard writes the whole manifest.
        overwrite: Do all videos again where the settings have changed.
        engine: Where to work: in processes of this machine, or on a Ray cluster whose machines see the same disks.

    Raises:
        ConfigError: If the settings contradict each other, the collection, or those of before; or Ray is missing.
        ManifestError: If the source cannot be listed.
        RunError: If a file cannot be written, or another process prepares into the folder.
        StopRequested: After SIGTERM.
    """
    config = config or PrepareConfig()
    manifest = scan_collection(source)
    targets = planned_targets(manifest, out)
    _check_plan(manifest, targets, out, config)
    state, origin = PrepareState(out, shard), manifest.file or manifest.root
    state.check(origin, config, overwrite=overwrite)  # before anything is written, the lock included
    with state.owned():
        state.begin(origin, config, overwrite=overwrite)
        return _prepare(manifest, state, config, targets, engine, workers=workers, shard=shard)


def _prepare(
    manifest: Manifest,
    state: PrepareState,
    config: PrepareConfig,
    targets: dict[Path, Path],
    engine: JobEngine,
    *,
    workers: int | None,
    shard: tuple[int, int] | None,
) -> PrepareResult:
    names = {path: manifest.relative_path(whole_video(row)) for row in manifest.rows for path in (row.path,)}
    notes = state.load()
    known = {path: standing(notes.get(name, ()), path) for path, name in names.items()}
    mine = list(targets) if shard is None else list(targets)[shard[0] :: shard[1]]
    before = [path for path in mine if (done := known[path]) is not None and done.parts]
    store = index_store(state.out)
    jobs = [PrepareJob(path, targets[path], config, store) for path in mine if path not in set(before)]
    with (
        TrainingProgress("preparing videos", total_steps=len(jobs), unit="videos") as progress,
        jobs_on(engine, prepare_file, jobs, workers=workers, limit_seconds=_limit_seconds) as finished,
    ):
        for number, (job, result) in enumerate(finished, start=1):
            done = _done(names[job.source], job.source, result)
            state.add(done)
            known[job.source] = done
            progress.update(number, num_clips=1)
    return _result(manifest, state.out, known, mine, num_before=len(before), shard=shard)


def _result(
    manifest: Manifest,
    out: Path,
    known: dict[Path, Done | None],
    mine: Sequence[Path],
    *,
    num_before: int,
    shard: tuple[int, int] | None,
) -> PrepareResult:
    written = {path: done.parts for path, done in known.items() if done is not None and done.parts}
    part = whole = None
    if shard is not None:
        part = out / f"manifest-{shard[0]}-of-{shard[1]}.csv"
        write_prepared(
            part, prepared_rows(manifest, {path: written.get(path, ()) for path in mine}), manifest.classes
        )
    if all(done is not None for done in known.values()):
        if not written:
            raise RunError(f"no video of {manifest.name} could be read, so {out} has no manifest: check the videos")
        whole = out / MANIFEST_FILE
        write_prepared(whole, prepared_rows(manifest, written), manifest.classes)
    ours = [path for path in mine if path in written]
    bytes_before = sum(done.size_bytes for path in ours if (done := known[path]) is not None)
    firsts = [written[path][0].path for path in ours]
    return PrepareResult(
        whole,
        part,
        len(mine),
        num_before,
        tuple((done.name, done.error) for path in mine if (done := known[path]) is not None and not done.parts),
        bytes_before,
        sum(one.size_bytes for path in ours for one in written[path]),
        (reading_rate(ours, ClipConfig()), reading_rate(firsts, ClipConfig())),
        measure_quality(list(zip(ours, firsts, strict=True))),
    )


def _check_plan(manifest: Manifest, targets: dict[Path, Path], out: Path, config: PrepareConfig) -> None:
    root, folder = manifest.root.resolve(), out.resolve()
    if manifest.file is None and (folder == root or root in folder.parents):
        raise ConfigError(
            f"{out} lies in {manifest.root}, where its videos would count as originals: choose a folder elsewhere"
        )
    originals = {path.resolve() for path in targets}
    for path, target in targets.items():
        if target.resolve() in originals:
            raise ConfigError(f"{path} would be overwritten by what is prepared: choose another folder than {out}")
    parts = [row for row in manifest.rows if row.source != row.path]
    if config.split_seconds is not None and parts:
        raise ConfigError(
            f"split_seconds is {config.split_seconds:g}, and {manifest.name} has rows with a start or an end, "
            f"such as {manifest.relative_path(parts[0])}: they are parts already, leave split_seconds out"
        )


def _done(name: str, source: Path, result: list[PreparedPart] | JobFailure) -> Done:
    size, modified = version_of(source) or (0, 0)
    if isinstance(result, JobFailure):
        return Done(name, size, modified, error=result.reason.removeprefix(f"{source} "))
    return Done(name, size, modified, tuple(result))


def _limit_seconds(job: PrepareJob) -> float:
    return LIMIT_SECONDS + max(size_of(job.source, ask=True), 0) / LIMIT_BYTES_PER_SECOND
