"""Importer of WebDataset shards: tar archives in which the files of a sample stand together and share a name.

Nothing is unpacked: a row names the bytes of its video in the shard, see `video/addresses.py`.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from videomae.data.configs import ImportConfig
from videomae.data.listed import Collection, ListedVideo, read_lines, split_in_name
from videomae.data.manifest_file import COLUMNS, GROUP, LABEL, LABELS, SPLIT, SPLITS
from videomae.errors import ManifestError, VideoReadError
from videomae.video.addresses import is_remote, member_name
from videomae.video.probe import VIDEO_SUFFIXES
from videomae.video.remote import NoRangesError, RemoteFile, list_remote

LABEL_SUFFIXES = (".cls", ".json", ".txt")
LABEL_BYTES = 1 << 20  # a longer file beside a video is no label
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass
class _Sample:
    """The files of one name."""

    videos: list[tarfile.TarInfo] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


def import_webdataset(source: Path, config: ImportConfig) -> Collection:
    """List the videos of tar shards.

    Args:
        source: A shard; a folder of shards, of any depth; or the name of shards with a range of numbers in it, such
            as `train-{000..147}.tar`. Each may be an address.
        config: `labels` may name a text file with the class names, one a line, for labels that are their numbers.

    Raises:
        ManifestError: If there is no shard, one cannot be read, or a label is no class.
    """
    classes = None if config.labels is None else tuple(line for line in read_lines(config.labels) if line.strip())
    videos: list[ListedVideo] = []
    num_other, has_several = 0, False
    for shard in _shards(source):
        split = split_in_name(shard)
        for key, sample in _samples(shard):
            if not sample.videos:
                num_other += 1
                continue
            labels, extra, several = _labels(f"{shard}, sample {key},", sample.texts, classes)
            has_several |= several
            facts = dict(extra)
            for info in sample.videos:
                path = member_name(shard, info.offset_data, info.size, _plain_name(info.name))
                own = facts.get(SPLIT, "")
                videos.append(
                    ListedVideo(
                        path,
                        labels,
                        facts.get(GROUP, ""),
                        own if own in SPLITS else split,
                        tuple(one for one in extra if one[0] not in COLUMNS),
                    )
                )
    notes = (f"{num_other} samples have no video and are left out",) if num_other else ()
    return Collection(videos, classes, has_several, notes)


def _shards(source: Path) -> list[Path]:
    found = _RANGE.search(str(source.name))
    if found is not None:
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        return [source.with_name(_RANGE.sub(f"{number:0{len(first)}}", source.name, count=1)) for number in numbers]
    if source.suffix.lower() == ".tar":
        return [source]
    try:
        paths = list_remote(str(source)) if is_remote(source) else sorted(source.rglob("*.tar"))
    except VideoReadError as error:
        raise ManifestError(str(error)) from None
    shards: list[Path] = [path for path in paths if path.suffix.lower() == ".tar"]
    if not shards:
        raise ManifestError(
            f"{source} has no .tar file: give a shard, the folder of the shards, or name-{{000..009}}.tar"
        )
    return shards


def _samples(shard: Path) -> Iterator[tuple[str, _Sample]]:
    """Yield the samples of a shard: files that stand together and are equal up to the first dot of their name."""
    current: str | None = None
    sample = _Sample()
    try:
        with _opened(shard) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for info in archive:
                name = PurePosixPath(info.name)
                if not info.isfile() or info.size == 0 or info.sparse or name.name.startswith("."):
                    continue
                stem, _, _ = name.name.partition(".")
                key, suffix = str(name.with_name(stem)), name.suffix.lower()
                if key != current:
                    if current is not None:
                        yield current, sample
                    current, sample = key, _Sample()
                if suffix in VIDEO_SUFFIXES:
                    sample.videos.append(info)
                elif suffix in LABEL_SUFFIXES and info.size <= LABEL_BYTES:
                    member = archive.extractfile(info)
                    assert member is not None  # it is a file
                    sample.texts[suffix] = member.read().decode("utf-8", "replace").strip()
    except tarfile.TarError as error:
        raise ManifestError(
            f"{shard} cannot be read as a tar archive ({error}): it is cut off, damaged or compressed; copy it "
            "again, or write it without compression, since a video in a compressed one has no place"
        ) from None
    except (OSError, VideoReadError) as error:
        raise ManifestError(f"{shard} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if current is not None:
        yield current, sample


def _opened(shard: Path) -> IO[bytes]:
    if not is_remote(shard):
        return shard.open("rb")
    try:
        return RemoteFile(str(shard))  # type: ignore[return-value]  # a raw file, as open(buffering=0) gives
    except NoRangesError:
        raise ManifestError(
            f"{shard} is on a server that does not send parts of files, or aiohttp is missing: download it first"
        ) from None


def _plain_name(name: str) -> str:
    """Return the name of a member for a path: without what would lead out of the archive."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", ".."))


def _labels(
    place: str, texts: dict[str, str], classes: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[tuple[str, str]], bool]:
    """Return the labels of a sample, further columns, and whether the labels are a list."""
    extra: list[tuple[str, str]] = []
    values: Any = None
    if ".json" in texts:
        try:
            facts = json.loads(texts[".json"])
        except ValueError as error:
            raise ManifestError(f"{place} has a .json file that is no JSON ({error})") from None
        if isinstance(facts, dict):
            values = facts.pop(LABELS, None) or facts.pop(LABEL, None)
            extra = [(name, _text(value)) for name, value in facts.items() if value is not None]
        else:
            values = facts
    is_list = isinstance(values, list)
    if ".cls" in texts:
        values, is_list = texts[".cls"], False
    elif values is None and ".txt" in texts:
        values = texts[".txt"]
    elif ".txt" in texts:
        extra.append(("text", " ".join(texts[".txt"].split())))
    names = [_text(one) for one in (values if is_list else [values]) if one not in (None, "")]
    faulty = next((name for name in names if len(name.splitlines()) > 1), None)
    if faulty is not None:
        raise ManifestError(f"{place} has a label of several lines, {faulty[:40]!r}: a label is one name")
    return tuple(_class_name(place, name, classes) for name in names), extra, is_list


def _class_name(place: str, name: str, classes: tuple[str, ...] | None) -> str:
    if classes is None or name in classes:
        return name
    if name.isdecimal() and int(name) < len(classes):
        return classes[int(name)]
    raise ManifestError(f"{place} has the label {name!r}, which is none of the {len(classes)} classes of --labels")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
