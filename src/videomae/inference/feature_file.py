"""The file of features: one safetensors file, written while the features are computed.

Tensors are called `<number>:<path>/features`, `.../time_spans` and `.../frame_indices`; the number, five digits,
keeps equal paths apart. The metadata entry `videomae` is JSON text that says how they were made.

safetensors' own writer takes all tensors at once. This one needs memory for the rows at hand: the header stands first
in the file and its length is not known until the end, so that room for it is left and filled up with spaces, as the
format allows.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from torch import Tensor

from videomae import __version__
from videomae.errors import WeightsError
from videomae.video.sampling import ClipConfig

METADATA_KEY = "videomae"  # the one entry of the file's text metadata
KINDS = ("time_spans", "frame_indices", "features")  # in the file's order: eight-byte values first, for alignment
DTYPES = {"time_spans": "F64", "frame_indices": "I64", "features": "F32"}
_LARGEST = 10**15  # as long as any size or offset in a header
_MAX_DIMS = 3


class FeatureWriter:
    """Writes features row by row into an open file.

    Args:
        stream: An empty file, open for writing and seeking.
        settings: What the metadata says beside the paths, from `feature_settings`.
        paths: Every video that may come, in order; room is left for their names.
    """

    def __init__(self, stream: BinaryIO, settings: Mapping[str, Any], paths: Sequence[str]) -> None:
        self._stream = stream
        self._settings = dict(settings)
        self._entries: dict[str, dict[str, Any]] = {}
        self._paths: list[str] = []
        largest = {"dtype": "F32", "shape": [_LARGEST] * _MAX_DIMS, "data_offsets": [_LARGEST] * 2}
        names = [_text(path) for path in paths]
        entries = {f"{number:05d}:{name}/{kind}": largest for number, name in enumerate(names) for kind in KINDS}
        reserved = len(self._header(entries, names))
        self._reserved = reserved + -reserved % 8  # data start at a multiple of eight bytes
        self._stream.write(bytes(8 + self._reserved))

    def add(self, path: str, tensors: Mapping[str, Iterable[Tensor]]) -> dict[str, list[int]]:
        """Write one video.

        Args:
            path: The video.
            tensors: By kind, all of `KINDS`; each as parts that are put together along their first dimension.

        Returns:
            The shape of each.

        Raises:
            Exception: Whatever the parts raise while they are computed; the file is then as it was before the call.
        """
        start = self._stream.tell()
        name = _text(path)
        prefix = f"{len(self._paths):05d}:{name}"
        entries: dict[str, dict[str, Any]] = {}
        shapes: dict[str, list[int]] = {}
        try:
            for kind in KINDS:
                begin, shape = self._stream.tell(), list[int]()
                for part in tensors[kind]:
                    self._stream.write(part.contiguous().numpy().data)
                    shape = [shape[0] + len(part), *shape[1:]] if shape else list(part.shape)
                assert shape, "a tensor has at least one part, of at least one dimension"
                offsets = [position - 8 - self._reserved for position in (begin, self._stream.tell())]
                entries[f"{prefix}/{kind}"] = {"dtype": DTYPES[kind], "shape": shape, "data_offsets": offsets}
                shapes[kind] = shape
        except BaseException:
            self._stream.seek(start)
            self._stream.truncate()
            raise
        self._entries.update(entries)
        self._paths.append(name)
        return shapes

    def finish(self) -> None:
        """Write the header into the room left for it."""
        header = self._header(self._entries, self._paths)
        self._stream.seek(0)
        self._stream.write(struct.pack("<Q", self._reserved) + header.ljust(self._reserved, b" "))

    def _header(self, entries: Mapping[str, Mapping[str, Any]], paths: Sequence[str]) -> bytes:
        metadata = {METADATA_KEY: json.dumps({**self._settings, "paths": list(paths)})}
        return json.dumps({"__metadata__": metadata, **entries}).encode("ascii")


def feature_settings(*, model: str, pooling: str, clip: ClipConfig, windows: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file's metadata says of how its features were made; `windows` are those of `WindowChoice`."""
    return {
        "version": __version__,
        "model": model,
        "pooling": pooling,
        "clip": asdict(clip),
        **windows,
    }


def read_feature_file(path: Path) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """Read what `FeatureWriter` wrote: the metadata, and each video's tensors by kind, in the order of its paths.

    Raises:
        WeightsError: If the file is missing, damaged, or no file of features.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is no file: give a file that was written by videomae's feature extraction")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            if metadata is None:
                raise WeightsError(f"{path} holds no features of videomae: give a file that its extraction wrote")
            videos = [
                {kind: file.get_tensor(f"{number:05d}:{name}/{kind}") for kind in KINDS}
                for number, name in enumerate(metadata["paths"])
            ]
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {str(error).splitlines()[0]}") from None
    return metadata, videos


def _text(path: str) -> str:
    """Return a path as text; bytes that are none, which Python keeps as surrogates, become question marks."""
    return path.encode("utf-8", "replace").decode("utf-8")
