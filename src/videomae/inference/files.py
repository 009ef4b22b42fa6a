"""The files of a command: which videos its arguments mean, and whether its output can be written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from videomae.data.datasets import BadVideo
from videomae.data.manifest import scan_unlabelled
from videomae.errors import ConfigError, ManifestError


def list_videos(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path | BadVideo]:
    """Yield every file as it is given, and for a folder its videos, of any depth, in order of their names.

    A folder without any is yielded as a `BadVideo` with the reason. A file is not opened, whatever its suffix.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        try:
            rows = scan_unlabelled(path).rows
        except ManifestError as error:
            yield BadVideo(str(path), str(error))
            continue
        for row in rows:
            yield row.path


def check_output(path: str | os.PathLike[str], *, suffix: str = "") -> None:
    """Check that an output file can be written, before anything is computed for it.

    Args:
        path: The file to make or to replace.
        suffix: How its name must end, such as ".png"; empty: in any way.

    Raises:
        ConfigError: If the name ends otherwise, is a folder's, or the folder is missing or cannot be written to.
    """
    output = Path(path)
    if suffix and output.suffix.lower() != suffix:
        raise ConfigError(f"output is {os.fspath(path)!r}; its name must end with {suffix}")
    if output.is_dir():
        raise ConfigError(f"output {output} is a folder: give the name of a file in it")
    if not output.parent.is_dir():
        raise ConfigError(f"the folder of output {output} does not exist: make it, or choose another file")
    if not os.access(output.parent, os.W_OK):
        raise ConfigError(f"the folder of output {output} cannot be written to: change its mode, or choose another")
