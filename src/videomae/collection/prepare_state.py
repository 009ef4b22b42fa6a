"""What a preparation has done so far, kept in its output folder, so that it goes on after a kill.

`.prepare/settings.json` has the source and the settings, `.prepare/done*.jsonl` a line for each video: one file for
each shard, so that machines never write to the same one. A line is written when all files of a video are on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from videomae.atomic import write_text_atomic
from videomae.collection.configs import PrepareConfig
from videomae.collection.transcode import PreparedPart
from videomae.errors import ConfigError, RunError
from videomae.ownership import LOCK_FILE, owned
from videomae.video.addresses import video_path
from videomae.video.index_store import FOLDER as INDEX_FOLDER
from videomae.video.opening import version_of

FOLDER = ".prepare"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Done:
    """What became of a video."""

    name: str
    """Relative path of the source."""
    size_bytes: int
    """Of the source when it was read."""
    modified_ns: int
    """Modification time of the source when it was read."""
    parts: tuple[PreparedPart, ...] = ()
    """What was written, in order; none where it could not be read."""
    error: str = ""
    """Why it could not be read."""

    def holds_for(self, source: Path) -> bool:
        """Tell whether the source is unchanged and all that was written is there."""
        try:
            there = all(part.path.stat().st_size == part.size_bytes for part in self.parts)
        except OSError:
            return False
        return bool(self.parts) and there and version_of(source) == (self.size_bytes, self.modified_ns)


def standing(notes: Sequence[Done], source: Path) -> Done | None:
    """Return what is to be believed of a video: a success that still holds, else the last failure, else nothing."""
    for done in reversed(notes):
        if done.holds_for(source):
            return done
    return next((done for done in reversed(notes) if done.error), None)


class PrepareState:
    """The state of one output folder, as one process or shard sees it."""

    def __init__(self, out: Path, shard: tuple[int, int] | None) -> None:
        """Name the files.

        Args:
            out: The output folder.
            shard: (i, n) where this process does every n-th video only.
        """
        self.out = out
        self._shard = shard
        self._folder = out / FOLDER
        name = "done.jsonl" if shard is None else f"done-{shard[0]}-of-{shard[1]}.jsonl"
        self._file = self._folder / name

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Keep others out of the folder: whoever has no shard is alone in it, and each shard has one process.

        Raises:
            RunError: If another process is there.
        """
        with ExitStack() as stack:
            lock = f"{FOLDER}/{LOCK_FILE}"
            stack.enter_context(owned(self.out, what="data prepare", shared=self._shard is not None, name=lock))
            if self._shard is not None:
                what, name = "data prepare of shard {}/{}", f"{lock}-{{}}-of-{{}}"
                stack.enter_context(owned(self.out, what=what.format(*self._shard), name=name.format(*self._shard)))
            yield

    def check(self, source: Path, config: PrepareConfig, *, overwrite: bool) -> dict[str, Any]:
        """Check that the settings are those of before; writes nothing. Returns them as they are written.

        Raises:
            ConfigError: If the folder was prepared from another source or with other settings, or holds other files.
        """
        settings = {"source": str(video_path(source).resolve()), **asdict(config)}
        before = self._settings()
        ours = self._folder.name, INDEX_FOLDER.parts[0]
        foreign = [path for path in self.out.iterdir() if path.name not in ours] if self.out.is_dir() else []
        if before is None and foreign and not overwrite:
            raise ConfigError(
                f"{self.out} holds other files, such as {foreign[0].name}: choose an empty folder, or --overwrite"
            )
        if before is not None and before != settings:
            name = next(name for name in {**settings, **before} if before.get(name) != settings.get(name))
            if not overwrite:
                raise ConfigError(
                    f"{self.out} was prepared with {name} {before.get(name)} and now it is {settings.get(name)}: "
                    "choose another folder, or --overwrite to prepare all videos again"
                )
        return settings

    def begin(self, source: Path, config: PrepareConfig, *, overwrite: bool) -> None:
        """Check the settings as `check` does, and write them where they are new.

        Raises:
            ConfigError: As for `check`.
            RunError: If the settings cannot be written.
        """
        settings, before = self.check(source, config, overwrite=overwrite), self._settings()
        if before == settings:
            return
        try:
            for file in self._folder.glob("done*.jsonl"):
                file.unlink()
            write_text_atomic(self._folder / SETTINGS, json.dumps(settings, indent=1) + "\n")
        except OSError as error:
            if self._settings() != settings:  # else another shard, started at the same time, was quicker
                raise RunError(f"cannot write into {self.out}: {error.strerror or error}") from None

    def load(self) -> dict[str, list[Done]]:
        """Return what all shards have noted, by relative path; see `standing`."""
        found: dict[str, list[Done]] = {}
        for file in sorted(self._folder.glob("done*.jsonl")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                done = self._parsed(line)
                if done is not None:
                    found.setdefault(done.name, []).append(done)
        return found

    def add(self, done: Done) -> None:
        """Append what became of a video, and put it on the disk.

        Raises:
            RunError: If it cannot be written.
        """
        parts = [{**part._asdict(), "path": part.path.relative_to(self.out).as_posix()} for part in done.parts]
        line = json.dumps({**asdict(done), "parts": parts}) + "\n"
        try:
            with self._file.open("ab+") as stream:
                if stream.tell() and not self._ends_with_newline():
                    stream.write(b"\n")  # a kill has cut the last line
                stream.write(line.encode("utf-8"))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self._file}: {error.strerror or error}") from None

    def _ends_with_newline(self) -> bool:
        with self._file.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b"\n"

    def _settings(self) -> Mapping[str, Any] | None:
        try:
            values = json.loads((self._folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    def _parsed(self, line: str) -> Done | None:
        try:
            values = json.loads(line)
            parts: Sequence[Mapping[str, Any]] = values.pop("parts")
            written = tuple(
                PreparedPart(self.out / one["path"], one["num_frames"], one["size_bytes"]) for one in parts
            )
            return Done(**values, parts=written)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # cut by a kill: the video is done again
