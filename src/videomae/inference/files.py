"""The files of a command: which model and videos its arguments mean, and what its outputs are called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from videomae.data.datasets import BadVideo
from videomae.data.manifest_file import is_manifest_file
from videomae.data.remote_folder import is_remote_folder
from videomae.data.scan import scan_unlabelled
from videomae.errors import ConfigError, ManifestError, WeightsError
from videomae.video.addresses import address_of, is_remote, shown_path
from videomae.video.index_store import IndexStore, index_store
from videomae.video.opening import plain_seconds, split_name, split_part
from videomae.video.probe import VIDEO_SUFFIXES
from videomae.weights.shipped import DEFAULT_MODEL
from videomae.weights.sources import INDEX_SUFFIX, LONE_SUFFIXES, NoWeightsError, find_source


def list_inputs(videos: Iterable[str | os.PathLike[str]]) -> Iterator[Path | str | BadVideo]:
    """Yield the videos that the arguments of a command mean, in their order.

    A folder, on a disk or in an object store, and a manifest, also behind an address, stand for their videos, in the
    order of their names; rows of a manifest with a start or an end are parts, `clip.mp4#t=3,5`. Anything else is one
    video and is not opened, whatever its suffix: a file is yielded as a path, an address as text, as it is given. A
    folder without videos and a manifest at fault are a `BadVideo` with the reason.

    Args:
        videos: Files, folders, manifests, addresses.
    """
    for video in videos:
        path = shown_path(video)
        if not (path.is_dir() or is_manifest_file(path) or is_remote_folder(path)):
            address = address_of(video)
            yield path if address is None else address
            continue
        try:
            rows = scan_unlabelled(path, check_files=False).rows
        except ManifestError as error:
            yield BadVideo(str(path), str(error))
            continue
        for row in rows:
            yield row.source


def collection_store(paths: Iterable[str | os.PathLike[str]]) -> IndexStore | None:
    """Return what keeps the frame indices of the videos of the first folder or manifest file; None without one."""
    for path in map(shown_path, paths):
        if is_manifest_file(path):
            return index_store(path.expanduser().parent)
        if path.is_dir() or is_remote_folder(path):
            return index_store(path)
    return None


PLACEHOLDER = "{video}"
"""In the name of an output: there is one for each video, named after it."""


def output_names(template: str, videos: Iterable[str]) -> dict[str, str]:
    """Return what the output of each video is called: the template with `{video}` replaced by the video's name.

    That is the name of the file without its ending, of a part with its times behind it. Of several videos with one
    name in different folders the second and the further ones have a number behind it, so that none replaces another.

    Args:
        template: A file's name.
        videos: All videos of a call, in order.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for video in dict.fromkeys(videos):
        stem = name = _stem(video)
        number = 1
        while name.casefold() in taken:  # on some disks names that differ in case alone are one
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[video] = template.replace(PLACEHOLDER, name)
    return names


def check_name_for_each(option: str, name: str, num_videos: int) -> None:
    """Check that one name is not meant for the outputs of several videos.

    Raises:
        ConfigError: If it is.
    """
    if num_videos > 1 and PLACEHOLDER not in name:
        path = Path(name)
        example = path.with_name(f"{PLACEHOLDER}-{path.name}")
        raise ConfigError(
            f"{option} is {name!r}, which is about one video, and there are {num_videos}: put {PLACEHOLDER} in the "
            f"name for a file of each, such as {example}"
        )


def _stem(video: str) -> str:
    name, start, end = split_name(video)
    path = name.partition("?")[0].partition("#")[0].rstrip("/") if address_of(name) is not None else name
    times = [] if start is end is None else [plain_seconds(one) for one in (start or 0.0, end) if one is not None]
    return "-".join([Path(path).stem, *times])


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
