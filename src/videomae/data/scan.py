"""Lists the videos of a folder, or of a manifest file in its stead: its checks, and what counts as a video.

Reads names only: a file that does not decode passes here and is reported by the loader.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from videomae.data.manifest import CLIPS_AN_EPOCH, Manifest, VideoRow, procedural_row, procedural_seed
from videomae.data.manifest_file import LABELS_FILE, MANIFEST_SUFFIXES, is_manifest_file, read_manifest
from videomae.data.remote_folder import is_remote_file, is_remote_folder, remote_videos
from videomae.errors import ManifestError
from videomae.video.addresses import is_remote, video_path
from videomae.video.opening import split_part
from videomae.video.pictures import PICTURE_SUFFIXES, parse_picture
from videomae.video.probe import VIDEO_SUFFIXES

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folder names that are parts of a data set, not classes."""


def scan_unlabelled(root: str | os.PathLike[str], *, check_files: bool = True) -> Manifest:
    """List all videos of a folder and its subfolders, folder names mean nothing; or the rows of a manifest file.

    A file is a video by its suffix, and so is a folder of numbered pictures with neither videos nor folders in it.
    Hidden files and folders (a leading dot) and files of other kinds are ignored. Links are followed; a folder that
    several links reach is listed once.

    Args:
        root: A folder, one video file, a manifest file, an address of either, or `procedural:` with or without a
            seed.
        check_files: Whether the videos of a manifest file must be there.

    Returns:
        A manifest, without labels unless a manifest file has them; of procedural clips its rows are no files.

    Raises:
        ManifestError: If there is no such folder, it cannot be listed, it holds no video, or the manifest file is at
            fault.
    """
    if procedural_seed(root) is not None:
        return Manifest(Path(root), tuple(procedural_row(Path(root), number) for number in range(CLIPS_AN_EPOCH)), ())
    folder = video_path(root).expanduser()
    if is_manifest_file(folder):
        return read_manifest(folder, labelled=False, check_files=check_files)
    if is_remote(folder):
        is_video = _has_video_suffix(split_part(folder).path)
        paths = [folder] if is_video else remote_videos(folder)
        return Manifest(folder.parent if is_video else folder, tuple(VideoRow(path, None) for path in paths), ())
    if folder.is_file():
        if not _has_video_suffix(folder):
            raise ManifestError(
                f"{folder} is not taken for a video, its suffix is none of {_suffixes()}: give a video file, a "
                f"folder of videos, or a manifest ({' or '.join(MANIFEST_SUFFIXES)})"
            )
        return Manifest(folder.parent, (VideoRow(folder, None),), ())
    _check_folder(folder)
    if is_frame_folder(_visible_entries(folder)):
        return Manifest(folder.parent, (VideoRow(folder, None),), ())
    paths = sorted(_walk(folder, set()), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        raise ManifestError(
            f"{folder} holds no video, at any depth (known suffixes: {_suffixes()}): give a folder that does"
            f"{_frames_hint(folder)}"
        )
    return Manifest(folder, tuple(VideoRow(path, None) for path in paths), ())


def scan_labelled(
    root: str | os.PathLike[str], *, subset: bool = False, several: bool = False, values: bool = False
) -> Manifest:
    """List the videos of a folder that has `labels.csv` or one subfolder for each class, or of a manifest file.

    Class ids follow the alphabetical order of the names, in a manifest file its list of classes. A class folder may
    have subfolders of its own. What counts as a video is as for `scan_unlabelled`.

    Args:
        root: The folder, or the manifest file, or the address of either.
        subset: Whether the classes are some of those that a classifier has, to measure it: then one folder will do,
            and an empty one only counts no videos.
        several: Whether a manifest file may give a video any number of labels.
        values: Whether each video is labelled by numbers in further columns of a manifest file, which then needs no
            labels; `read_targets` checks them.

    Returns:
        A manifest with a label for every video, or what else was asked for.

    Raises:
        ManifestError: If the folder is missing, is another file, has no video, videos beside the class folders, or
            folders that look like the parts of a split; and unless `subset`, fewer than two class folders or an empty
            one. Or if the manifest file is at fault.
    """
    if procedural_seed(root) is not None:
        raise ManifestError(
            f"{root} has no labels: pre-train on it, or write labelled videos with videomae data generate motion"
        )
    folder = video_path(root).expanduser()
    file = manifest_file_of(folder)
    if values:
        if file is None:
            raise ManifestError(
                f"{folder} has no {LABELS_FILE}: values of videos are read from a manifest, see docs/evaluation.md"
            )
        return read_manifest(file, labelled=False)
    if file is not None:
        manifest = read_manifest(file, labelled=True, several=several)
        is_several = any(row.labels for row in manifest.rows)
        if len(manifest.classes) < 2 and not subset and not is_several:
            raise ManifestError(
                f"{file} has one class, {manifest.classes[0]}; telling classes apart needs at least two: add another"
            )
        return manifest
    if folder.is_file():
        raise ManifestError(
            f"{folder} is a file: give the folder that has one subfolder of videos for each class, or a manifest "
            f"({' or '.join(MANIFEST_SUFFIXES)})"
        )
    return scan_class_folders(folder, subset=subset)


def scan_class_folders(folder: Path, *, subset: bool) -> Manifest:
    """List a folder with one subfolder for each class, whatever else lies in it; see `scan_labelled`.

    Raises:
        ManifestError: As for `scan_labelled`.
    """
    if is_remote(folder):
        return _scan_remote_classes(folder, subset=subset)
    _check_folder(folder)
    entries = _visible_entries(folder)
    class_folders = [folder / entry.name for entry in entries if _is_folder(entry)]
    if is_frame_folder(entries):
        raise ManifestError(f"{folder} is a folder of pictures, which is one video: give a folder of class folders")
    _check_classes(folder, class_folders, stray=[entry.name for entry in entries if _is_video(entry)], subset=subset)
    _check_no_pictures(class_folders)
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


def _scan_remote_classes(folder: Path, *, subset: bool) -> Manifest:
    paths = remote_videos(folder)
    parts = [path.relative_to(folder).parts for path in paths]
    names = sorted({one[0] for one in parts if len(one) > 1})
    _check_classes(
        folder, [folder / name for name in names], stray=[one[0] for one in parts if len(one) == 1], subset=subset
    )
    rows = [VideoRow(path, names.index(one[0])) for path, one in zip(paths, parts, strict=True)]
    return Manifest(folder, tuple(rows), tuple(names))


def manifest_file_of(path: Path) -> Path | None:
    """Return the manifest file that a path names, or that lies in the folder it names; None where there is none."""
    if is_manifest_file(path):
        return path
    listed = path / LABELS_FILE
    is_there = is_remote_file(listed) if is_remote_folder(path) else listed.is_file()
    return listed if is_there else None


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
            f"{folder / stray[0]} lies next to the class folders, so it has no label: move it into one of them"
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


def _check_no_pictures(class_folders: list[Path]) -> None:
    frames = next((path for path in class_folders if is_frame_folder(_visible_entries(path))), None)
    if frames is not None:
        raise ManifestError(
            f"{frames} is a folder of pictures, which is one video, not a class: make a folder for each class, and "
            "move it into one of them"
        )


def _frames_hint(folder: Path) -> str:
    """Say how pictures are read as a video, where that is what a folder without videos holds; else nothing."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        pictures = sorted(name for name in files if Path(name).suffix.lower() in PICTURE_SUFFIXES)
        if pictures:
            return (
                f"; {Path(place) / pictures[0]} is a picture: a folder of pictures named by number, such as "
                "img_00001.jpg, with nothing else to read in it, is a video"
            )
    return ""


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    """Yield the videos below a folder; `seen` holds the real paths listed, so that a loop of links ends."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    entries = _visible_entries(folder)
    if is_frame_folder(entries):
        yield folder
        return
    for entry in entries:
        if _is_folder(entry):
            yield from _walk(folder / entry.name, seen)
        elif _is_video(entry):
            yield folder / entry.name


def is_frame_folder(entries: list[os.DirEntry[str]]) -> bool:
    """Tell whether a folder is a video, by its visible entries: numbered pictures, and no video and no folder."""
    return any(parse_picture(entry.name) for entry in entries) and not any(
        _has_video_suffix(Path(entry.name)) or _is_folder(entry) for entry in entries
    )


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
