"""Which files a list of files and folders means.

Knows nothing of what the files hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from videomae.data.datasets import BadVideo
from videomae.data.manifest import scan_unlabelled
from videomae.errors import ManifestError


def list_videos(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path | BadVideo]:
    """Yield every file as it is given, and in place of a folder its videos, of any depth, in order of their names.

    A folder that gives none is yielded as a `BadVideo` with the reason. A file is not looked at, whatever its suffix.
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
