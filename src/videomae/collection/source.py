"""The rows of a collection, taken as leniently as can be: what is wrong with it is to be reported, not refused."""

from __future__ import annotations

from pathlib import Path

from videomae.data.manifest import Manifest, procedural_seed
from videomae.data.manifest_file import read_manifest
from videomae.data.remote_folder import is_remote_folder
from videomae.data.scan import manifest_file_of, scan_labelled, scan_unlabelled
from videomae.errors import ManifestError
from videomae.video.addresses import video_path


def scan_collection(root: Path) -> Manifest:
    """List the videos of whatever the training commands take, with labels where there are any.

    Rows of a manifest file whose video is missing are listed as well.

    Args:
        root: A folder of videos, of class folders or with labels.csv, a manifest file, one video, or an
            address of one of these.

    Raises:
        ManifestError: If it is none of these, or holds no video.
    """
    if procedural_seed(root) is not None:
        raise ManifestError(f"{root} stands for clips that are drawn, not read: give a folder or a manifest")
    folder = video_path(root).expanduser()
    file = manifest_file_of(folder)
    if file is not None:
        return read_manifest(file, labelled=False, check_files=False)
    if folder.is_dir() or is_remote_folder(folder):
        try:
            return scan_labelled(folder, subset=True)
        except ManifestError:  # no class folders, or something beside them
            pass
    return scan_unlabelled(folder)
