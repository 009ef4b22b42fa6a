"""Lists of videos that training leaves out: `skip.txt` of `videomae data check`, one relative path a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from videomae.atomic import write_text_atomic
from videomae.data.manifest import Manifest, whole_video
from videomae.errors import ManifestError
from videomae.wording import counted


def read_skip_list(path: Path) -> tuple[str, ...]:
    """Return the names in a skip list, in its order.

    Raises:
        ManifestError: If the file cannot be read.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(
            f"the skip list {path} cannot be read ({reason}): give a text file with one path a line, such as the "
            "skip.txt of videomae data check"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def write_skip_list(path: Path, names: Iterable[str]) -> None:
    """Write a skip list atomically; a name that has a line break in it cannot be in one and is left out.

    Raises:
        OSError: If the file cannot be written.
    """
    kept = sorted(name for name in set(names) if len(name.splitlines()) == 1)
    write_text_atomic(path, "".join(f"{name}\n" for name in kept))


def without_skipped(manifests: Sequence[Manifest], path: Path | None) -> list[Manifest]:
    """Return data sets without the rows that a skip list names.

    A line names a row as `Manifest.relative_path` does, or a whole video, which takes all its parts along.

    Args:
        manifests: The data sets of a run; each line must name a row of at least one.
        path: The list; None: nothing is skipped.

    Raises:
        ManifestError: If the list cannot be read, a line names no video, or nothing is left of a data set.
    """
    if path is None:
        return list(manifests)
    skipped = set(read_skip_list(path))
    left, used = [], set()
    for manifest in manifests:
        rows = []
        for row in manifest.rows:
            names = {manifest.relative_path(row), manifest.relative_path(whole_video(row))} & skipped
            used |= names
            if not names:
                rows.append(row)
        if not rows:
            raise ManifestError(f"the skip list {path} names every video of {manifest.name}: shorten it")
        left.append(manifest.with_rows(rows))
    unknown = sorted(skipped - used)
    if unknown:
        places = " or ".join(str(manifest.name) for manifest in manifests)
        raise ManifestError(
            f"the skip list {path} names {counted(len(unknown), 'video')} not in {places}, first {unknown[0]}: check "
            "the videos again, or take the lines out"
        )
    return left
