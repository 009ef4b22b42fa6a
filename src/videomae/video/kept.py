"""An indexed video as bytes: what an index store keeps of a file.

Arrays are stored in the narrowest integers that hold them or their differences, since a collection has 100,000 files:
10 seconds of video take 3 to 5 kB, an hour 1.3 MB, which is read in 7 milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np

from videomae.video.addresses import shown_path
from videomae.video.direct import DirectAccess
from videomae.video.encoded import EncodedFile
from videomae.video.index import FrameIndex, evenly_spaced
from videomae.video.indexed import ContainerFacts, IndexedVideo
from videomae.video.packets import IntArray, PacketTable
from videomae.video.probe import VideoInfo
from videomae.video.rgb import Orientation

FORMAT = 2
"""Part of every key: raised when the meaning of what is kept changes."""

_DTYPES = tuple(np.dtype(name) for name in ("i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8"))


def to_bytes(video: IndexedVideo) -> bytes:
    """Return a video whose index is known as bytes."""
    index, access = video.index, video.access
    assert index is not None
    table = index.packets
    arrays: dict[str, IntArray | None] = {
        "pts": table.pts,
        "dts": table.dts,
        "sizes": table.sizes,
        "flags": _flags(table),
        "frame_pts": index.pts if index.is_decoded else None,
        "packet_of": index.packet_of,
        "seek_frames": index.seek_frames,
        "seek_packets": index.seek_packets,
        "positions": None if access is None else access.positions,
        "checksums": None if access is None else access.checksums,
    }
    if index.pts is None:
        ticks = np.rint(index.time_seconds / (video.seconds_per_unit or 1.0)).astype(np.int64)
        if (ticks * video.seconds_per_unit == index.time_seconds).all():
            arrays["ticks"] = ticks  # else frames are spaced evenly, because the file gives no times
    packed = {name: _packed(array) for name, array in arrays.items() if array is not None}
    header = {
        "info": {name: value for name, value in dataclasses.asdict(video.info).items() if name != "path"},
        "orientation": list(video.orientation),
        "seconds_per_unit": video.seconds_per_unit,
        "container": list(video.container),
        "num_frames": index.num_frames,
        "access": None
        if access is None
        else [access.decoder, b64encode(access.extradata).decode("ascii"), access.settings],
        "arrays": {name: how for name, (how, _) in packed.items()},
    }
    head = json.dumps(header, separators=(",", ":")).encode("utf-8")
    return b"".join([len(head).to_bytes(4, "little"), head, *(data for _, data in packed.values())])


def from_bytes(content: bytes, file: EncodedFile) -> IndexedVideo:
    """Return the video that `to_bytes` has written.

    Args:
        content: What was written.
        file: The video.

    Raises:
        ValueError, LookupError, TypeError: If it is something else.
    """
    size = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + size])
    arrays = dict(_unpacked(header["arrays"], content, 4 + size))
    flags = arrays["flags"]
    table = PacketTable(
        arrays["pts"],
        arrays["dts"],
        arrays["sizes"],
        (flags & 1).astype(np.bool_),
        (flags >> 2).astype(np.int8) - np.int8(1),
        (flags & 2).astype(np.bool_),
    )
    info = VideoInfo(path=shown_path(file.name), **header["info"])
    seconds_per_unit = float(header["seconds_per_unit"])
    packet_of = arrays.get("packet_of")
    pts = arrays.get("frame_pts") if packet_of is None else table.pts[packet_of]
    num_frames = int(header["num_frames"])
    if pts is not None:
        times = (pts - pts[0]) * seconds_per_unit
    elif "ticks" in arrays:
        times = arrays["ticks"] * seconds_per_unit
    else:
        times = evenly_spaced(num_frames, info.frame_rate)
    index = FrameIndex(num_frames, times, pts, table, arrays["seek_frames"], arrays["seek_packets"], packet_of)
    access = None
    if header["access"] is not None:
        decoder, extradata, settings = header["access"]
        access = DirectAccess(decoder, b64decode(extradata), settings, arrays["positions"], arrays["checksums"])
    container = ContainerFacts(*header["container"])
    return IndexedVideo(info, Orientation(*header["orientation"]), seconds_per_unit, container, index, access)


def _flags(table: PacketTable) -> IntArray:
    """Return keyframe in bit 0, disposable in bit 1, and the number of frames shown plus 1 above."""
    shown = (table.num_shown.astype(np.int64) + 1) << 2
    return shown | table.is_key.astype(np.int64) | table.is_disposable.astype(np.int64) << 1


def _packed(array: IntArray) -> tuple[list[Any], bytes]:
    """Return how an array is stored, and its bytes; of a constant step there are none."""
    steps = np.diff(array)
    first = int(array[0]) if len(array) else 0
    if len(steps) == 0 or (steps == steps[0]).all():
        return ["steps", len(array), first, int(steps[0]) if len(steps) else 0], b""
    plain, differences = _narrowest(array), _narrowest(steps)
    if differences.itemsize < plain.itemsize:
        return ["differences", len(array), first, differences.str], steps.astype(differences).tobytes()
    return ["plain", len(array), first, plain.str], array.astype(plain).tobytes()


def _narrowest(array: IntArray) -> np.dtype[Any]:
    low, high = int(array.min()), int(array.max())
    return next(dtype for dtype in _DTYPES if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max)


def _unpacked(arrays: dict[str, list[Any]], content: bytes, start: int) -> Iterator[tuple[str, IntArray]]:
    for name, (kind, count, first, how) in arrays.items():
        if kind == "steps":
            yield name, first + how * np.arange(count, dtype=np.int64)
            continue
        dtype = np.dtype(how)
        num_stored = count - (kind == "differences")
        stored = np.frombuffer(content, dtype, num_stored, start).astype(np.int64)
        start += num_stored * dtype.itemsize
        yield name, stored if kind == "plain" else np.cumsum(np.concatenate([[first], stored]))
