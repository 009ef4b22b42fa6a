"""Which videos make a data set: a scan of a folder, its checks, its fingerprint and its split.

Reads names and sizes only: a file that does not decode passes here and is reported by the loader.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path

from videomae.errors import ConfigError, ManifestError
from videomae.video.probe import VIDEO_SUFFIXES

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folder names that are parts of a data set, not classes."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


PROCEDURAL = "procedural:"
"""What stands for a folder where the clips of a pre-training run are drawn instead of read; a seed may follow."""

CLIPS_AN_EPOCH = 10_000
"""Procedural clips that count as one pass; the next pass has others."""


@dataclass(frozen=True)
class VideoRow:
    """One video of a data set."""

    path: Path
    """The file."""
    label: int | None
    """Class id; None where the data set has no labels."""


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set, in the order of their relative paths."""

    root: Path
    """Folder that all paths lie in."""
    rows: tuple[VideoRow, ...]
    """The videos, at least one."""
    classes: tuple[str, ...]
    """Class names in label order; empty where there are no labels."""

    def relative_path(self, row: VideoRow) -> str:
        """Return the path of a row below the root, with forward slashes on every system."""
        return row.path.relative_to(self.root).as_posix()

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes when a video is added, removed, renamed, resized or relabelled.

        It does not depend on where the folder lies. Contents are not read: an edit that keeps the size stays
        unseen.
        """
        digest = sha256()
        for row in sorted(self.rows, key=self.relative_path):
            entry = (self.relative_path(row), _size_bytes(row.path), row.label)
            digest.update(_to_bytes(repr(entry)) + b"\n")
        return digest.hexdigest()


def scan_unlabelled(root: str | os.PathLike[str]) -> Manifest:
    """List all videos of a folder and its subfolders; folder names mean nothing.

    A file is a video by its suffix. Hidden files and folders (a leading dot) and files of other kinds are ignored.
    Links are followed; a folder that several links reach is listed once.

    Args:
        root: A folder, one video file, or `procedural:` with or without a seed.

    Returns:
        A manifest without labels; of procedural clips its rows are no files.

    Raises:
        ManifestError: If there is no such folder, it cannot be listed, or it holds no video.
    """
    if procedural_seed(root) is not None:
        return Manifest(Path(root), tuple(procedural_row(Path(root), number) for number in range(CLIPS_AN_EPOCH)), ())
    folder = Path(root).expanduser()
    if folder.is_file():
        if not _has_video_suffix(folder):
            raise ManifestError(
                f"{folder} is not taken for a video, its suffix is none of {_suffixes()}: "
                "give a video file or a folder of videos; lists of videos are not read: make a folder with links to "
                "its files"
            )
        return Manifest(folder.parent, (VideoRow(folder, None),), ())
    _check_folder(folder)
    paths = sorted(_walk(folder, set()), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        raise ManifestError(
            f"{folder} holds no video, at any depth (known suffixes: {_suffixes()}): give a folder that does"
            f"{_frames_hint(folder)}"
        )
    return Manifest(folder, tuple(VideoRow(path, None) for path in paths), ())


def procedural_seed(root: str | os.PathLike[str]) -> int | None:
    """Return the seed of `procedural:SEED`, 0 where none is given, or None where `root` is something else.

    Raises:
        ManifestError: If what follows is no seed.
    """
    name, colon, seed = os.fspath(root).partition(":")
    if name + colon != PROCEDURAL:
        return None
    if seed and not (seed.isascii() and seed.isdigit()):
        raise ManifestError(
            f"{root} names no seed: use {PROCEDURAL} or a whole number after it, such as {PROCEDURAL}7"
        )
    return int(seed or 0)


def procedural_row(root: Path, number: int) -> VideoRow:
    """Return what stands for a procedural clip in a manifest; no file has its path, which names seed and number."""
    return VideoRow(root / f"seed-{procedural_seed(root)}-clip-{number}", None)


def procedural_number(row: VideoRow) -> int:
    """Return the number of the clip that `procedural_row` has made."""
    return int(row.path.name.rpartition("-")[2])


def scan_labelled(root: str | os.PathLike[str], *, subset: bool = False) -> Manifest:
    """List the videos of a folder that has one subfolder for each class.

    Class ids follow the alphabetical order of the names. A class folder may have subfolders of its own. What
    counts as a video is as for `scan_unlabelled`.

    Args:
        root: The folder of class folders.
        subset: Whether the classes are some of those that a classifier has, to measure it: then one folder will do,
            and an empty one only counts no videos.

    Returns:
        A manifest with a label for every video.

    Raises:
        ManifestError: If the folder is missing, is a file, has no video, videos beside the class folders, or folders
            that look like the parts of a split; and unless `subset`, fewer than two class folders or an empty one.
    """
    if procedural_seed(root) is not None:
        raise ManifestError(
            f"{root} has no labels: pre-train on it, or write labelled videos with videomae data generate motion"
        )
    folder = Path(root).expanduser()
    if folder.is_file():
        raise ManifestError(
            f"{folder} is a file: give the folder that has one subfolder of videos for each class; lists of videos "
            "are not read: make such a folder with links to its files"
        )
    _check_folder(folder)
    entries = _visible_entries(folder)
    class_folders = [folder / entry.name for entry in entries if _is_folder(entry)]
    _check_classes(folder, class_folders, stray=[entry.name for entry in entries if _is_video(entry)], subset=subset)
    rows = []
    for label, class_folder in enumerate(class_folders):
        paths = sorted(_walk(class_folder, set()), key=lambda path: path.relative_to(folder).as_posix())
        if not paths and not subset:
            raise ManifestError(
                f"class folder {class_folder} holds no video (known suffixes: {_suffixes()}): "
                f"add videos or remove the folder{_frames_hint(class_folder)}"
            )
        rows += [VideoRow(path, label) for path in paths]
    if not rows:
        raise ManifestError(
            f"the class folders of {folder} hold no video (known suffixes: {_suffixes()}): "
            f"add videos{_frames_hint(folder)}"
        )
    return Manifest(folder, tuple(rows), tuple(path.name for path in class_folders))


def split_manifest(manifest: Manifest, *, val_fraction: float) -> tuple[Manifest, Manifest]:
    """Split a data set in two by a hash of each video's relative path, class by class.

    A video's side depends on its own path, so adding videos never moves another - except in a class so small that
    the hash puts all of it on one side: there the video nearest to the border changes sides, so that every class
    with two videos or more is on both. A class of one video is for training. The fraction is met on average, not
    exactly. Videos cut from one recording look alike; a split by path does not keep them together.

    Args:
        manifest: With or without labels.
        val_fraction: Fraction of videos in the second manifest, in (0, 1).

    Returns:
        (training, validation), with the root and the classes of the whole.

    Raises:
        ConfigError: If the fraction is out of range.
        ManifestError: If no class has two videos, so that nothing is left to validate on.
    """
    if not 0.0 < val_fraction < 1.0:
        hint = f": did you mean {val_fraction / 100:g}?" if 1.0 < val_fraction < 100.0 else ""
        raise ConfigError(f"val_fraction is {val_fraction:g}; it is a fraction in (0, 1){hint}")
    by_class: dict[int | None, list[VideoRow]] = {}
    for row in manifest.rows:
        by_class.setdefault(row.label, []).append(row)
    in_val: set[VideoRow] = set()
    for rows in by_class.values():
        ordered = sorted(rows, key=lambda row: (_path_fraction(manifest, row), manifest.relative_path(row)))
        count = sum(_path_fraction(manifest, row) < val_fraction for row in rows)
        in_val.update(ordered[: min(max(count, 1), len(rows) - 1)])
    if not in_val:
        raise ManifestError(
            f"{manifest.root} has no class with two videos, so none is left for validation: add videos"
        )
    train = tuple(row for row in manifest.rows if row not in in_val)
    val = tuple(row for row in manifest.rows if row in in_val)
    return Manifest(manifest.root, train, manifest.classes), Manifest(manifest.root, val, manifest.classes)


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise ManifestError(f"{folder} does not exist: give the path of a folder of videos")
    if not folder.is_dir():
        raise ManifestError(f"{folder} is neither a folder nor an ordinary file: give a folder of videos")


def _check_classes(folder: Path, class_folders: list[Path], *, stray: list[str], subset: bool) -> None:
    """Raise unless the class folders, and the videos beside them, are those of a labelled data set."""
    if not class_folders:
        found = f"only videos, such as {stray[0]}" if stray else "no subfolder"
        raise ManifestError(f"{folder} holds {found}: make one subfolder of videos for each class")
    if stray:
        raise ManifestError(
            f"{folder / stray[0]} lies beside the class folders, so it has no label: move it into one of them"
        )
    names = [path.name for path in class_folders]
    if SPLIT_NAMES.issuperset(name.lower() for name in names):
        raise ManifestError(
            f"{folder} has the subfolders {', '.join(names)}, which are parts of a data set, not classes: "
            f"give one of them, such as {class_folders[0]}"
        )
    if len(class_folders) < 2 and not subset:
        raise ManifestError(
            f"{folder} has one class folder, {names[0]}; telling classes apart needs at least two: "
            "add another, or give the folder above"
        )


def _frames_hint(folder: Path) -> str:
    """Say how to make videos of folders of frames, where that is what a folder without videos holds; else nothing."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        pictures = sorted(name for name in files if Path(name).suffix.lower() in PICTURE_SUFFIXES)
        if pictures:
            return (
                f"; {Path(place) / pictures[0]} is a picture, and folders of frames are not read: make a video of "
                "each with videomae.video.write.write_video or ffmpeg, or give the frames to videomae.Predictor"
            )
    return ""


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    """Yield the videos below a folder; `seen` holds the real paths listed, so that a loop of links ends."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in _visible_entries(folder):
        if _is_folder(entry):
            yield from _walk(folder / entry.name, seen)
        elif _is_video(entry):
            yield folder / entry.name


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder by name; directory entries know their kind, which spares a call for each of many files."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name
            )
    except OSError as error:
        raise ManifestError(
            f"{folder} cannot be listed ({error.strerror}): make it readable or give another folder"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link to itself makes DirEntry raise, where Path says no.
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _is_video(entry: os.DirEntry[str]) -> bool:
    path = Path(entry.path)
    if not _has_video_suffix(path) or _is_folder(entry):
        return False
    if entry.is_symlink():  # a broken link stays in, to be reported by name when it is read
        return path.is_file() or not path.exists()
    return entry.is_file()  # a pipe or socket would block whoever opens it


def _has_video_suffix(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _suffixes() -> str:
    return " ".join(sorted(VIDEO_SUFFIXES))


def _size_bytes(path: Path) -> int:
    """Return the size of a file, or -1 if it is gone: the fingerprint then differs, and reading reports it."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _path_fraction(manifest: Manifest, row: VideoRow) -> float:
    """Map a row's relative path to a fixed number in [0, 1)."""
    # NFC: macOS may spell the accents of one and the same name differently.
    name = unicodedata.normalize("NFC", manifest.relative_path(row))
    return int.from_bytes(blake2b(_to_bytes(name), digest_size=6).digest(), "big") / 2.0**48


def _to_bytes(text: str) -> bytes:
    """Encode a file name; surrogatepass keeps names that are not valid Unicode apart instead of failing."""
    return text.encode("utf-8", "surrogatepass")
