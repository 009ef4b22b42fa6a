"""The files of a command: which model and which videos its arguments mean, and whether its output can be written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from videomae.data.datasets import BadVideo
from videomae.data.manifest_file import is_manifest_file
from videomae.data.remote_folder import is_remote_folder
from videomae.data.scan import scan_unlabelled
from videomae.errors import ConfigError, ManifestError, WeightsError
from videomae.video.addresses import is_remote, video_path
from videomae.video.index_store import IndexStore, index_store
from videomae.video.opening import split_part
from videomae.video.probe import VIDEO_SUFFIXES
from videomae.weights.shipped import DEFAULT_MODEL
from videomae.weights.sources import INDEX_SUFFIX, LONE_SUFFIXES, NoWeightsError, find_source


def list_videos(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path | BadVideo]:
    """Yield every file as it is given, and for a folder or a manifest file its videos, in order of their names.

    A folder without any, or a manifest file at fault, is yielded as a `BadVideo` with the reason. Another file is not
    opened, whatever its suffix.
    """
    for path in map(video_path, paths):
        if not (path.is_dir() or is_manifest_file(path) or is_remote_folder(path)):
            yield path
            continue
        try:
            rows = scan_unlabelled(path, check_files=False).rows
        except ManifestError as error:
            yield BadVideo(str(path), str(error))
            continue
        for row in rows:
            yield row.source


def list_inputs(videos: Iterable[str | os.PathLike[str]]) -> Iterator[Path | str | BadVideo]:
    """Yield what `list_videos` does, and addresses, such as `https://host/clip.mp4`, as text, as they are given."""
    for video in videos:
        name = os.fspath(video)
        if "://" in name and not os.path.exists(name):
            yield name
        else:
            yield from list_videos([video])


def collection_store(paths: Iterable[str | os.PathLike[str]]) -> IndexStore | None:
    """Return what keeps the frame indices of the videos of the first folder or manifest file; None without one."""
    for path in map(video_path, paths):
        if is_manifest_file(path):
            return index_store(path.expanduser().parent)
        if path.is_dir() or is_remote_folder(path):
            return index_store(path)
    return None


def split_model(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Tell a model that stands before the videos from the videos.

    The first argument is a model if it is `default`, a file whose name ends as those of weights, or a folder with a
    model in it; and where nothing of this name is here, if others follow and it does not end as a video does: it may
    be on the Hub.

    Args:
        arguments: As they were typed, at least one.

    Returns:
        The model, None where there is none, and the videos.

    Raises:
        ConfigError: If the first is a folder with both a model and videos, or a model without videos after it.
    """
    first, *rest = arguments
    path = Path(first)
    if is_remote(first):
        return None, list(arguments)
    if path.is_dir() and first != DEFAULT_MODEL:
        is_model = _holds_model(path)
        if is_model and _holds_videos(path):
            raise ConfigError(
                f"{first} holds a model and videos, and either may be meant: give --model {first} for its model, or "
                f"--model {DEFAULT_MODEL} (or another) for its videos"
            )
    elif path.is_file():
        is_model = path.suffix in LONE_SUFFIXES or first.endswith(INDEX_SUFFIX)
    else:
        is_model = first == DEFAULT_MODEL or (
            bool(rest) and split_part(path).path.suffix.lower() not in VIDEO_SUFFIXES
        )
    if is_model and not rest:
        raise ConfigError(
            f"{first} is a model, and no videos follow it: give video files or folders of them after it"
        )
    return (first, rest) if is_model else (None, list(arguments))


def _holds_model(folder: Path) -> bool:
    try:
        find_source(folder)
    except NoWeightsError:
        return False
    except WeightsError:  # shards that are missing, and the like: for whoever loads them to report
        return True
    return True


def _holds_videos(folder: Path) -> bool:
    try:
        rows = scan_unlabelled(folder).rows
    except ManifestError:
        return False
    return rows[0].path != folder  # pictures beside a model are no video


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
