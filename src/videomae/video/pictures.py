"""A folder of numbered pictures as a video: `img_00001.jpg`, `img_00002.jpg` and so on are its frames.

The number is the last one in a file's name. Frames are in the order of the numbers, which may start anywhere and have
no gap. All pictures have one size. What else is in the folder is ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from videomae.errors import VideoReadError
from videomae.video.closing import Closing
from videomae.video.probe import VideoInfo
from videomae.video.rgb import ByteArray, checked_size

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
PICTURES_A_SECOND = 25.0  # pictures say nothing of time; FFmpeg's default for numbered pictures

Taken = TypeVar("Taken")
_TURNED = (5, 6, 7, 8)  # values of EXIF's orientation with which height and width change places
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\D*)", flags=re.DOTALL)
_TEMPLATE = re.compile(r"%(?:0?\d+)?d|\{(?::0?\d*d?)?\}")


class Picture(NamedTuple):
    """The name of a numbered picture, taken apart."""

    number: int
    """What frames are ordered by."""
    series: tuple[str, str]
    """What stands before and after the number; the same for all pictures of a video."""
    name: str
    """The name as it is."""


def parse_picture(name: str) -> Picture | None:
    """Take the name of a numbered picture apart; None if it is another file's."""
    if os.path.splitext(name)[1].lower() not in PICTURE_SUFFIXES or name.startswith("."):
        return None
    stem, suffix = os.path.splitext(name)
    found = _NUMBERED.fullmatch(stem)
    if found is None or not found["number"].isascii():
        return None
    return Picture(int(found["number"]), (found["before"], found["after"] + suffix), name)


def split_template(path: Path) -> tuple[Path, str | None]:
    """Tell the folder and the template of names in a path such as `clip/img_{:05}.jpg` or `clip/img_%05d.jpg`.

    Returns:
        The folder and the template; the path itself and None where its last part is none.
    """
    is_template = path.suffix.lower() in PICTURE_SUFFIXES and len(_TEMPLATE.findall(path.name)) == 1
    return (path.parent, path.name) if is_template else (path, None)


def ordered_pictures(folder: Path, names: Iterable[str], template: str | None = None) -> list[str]:
    """Return the names of a video's pictures in the order of their numbers.

    Args:
        folder: What to name in messages.
        names: All names in the folder.
        template: Take only the names that it makes of numbers.

    Raises:
        VideoReadError: If there is none, a number is missing or comes twice, or they are of two series.
    """
    pictures = sorted(picture for name in names if (picture := parse_picture(name)) is not None)
    if template is not None:
        before, after = (re.escape(part) for part in _TEMPLATE.split(template))
        pattern = re.compile(rf"{before}\d+{after}")
        pictures = [picture for picture in pictures if pattern.fullmatch(picture.name)]
    if not pictures:
        wanted = f"picture that {template} names" if template else "numbered picture, such as img_00001.jpg"
        raise VideoReadError(f"{folder} holds no {wanted}: give a folder of frames, or a video file")
    other = next((picture for picture in pictures if picture.series != pictures[0].series), None)
    if other is not None:
        raise VideoReadError(
            f"{folder} holds pictures of two series, such as {pictures[0].name} and {other.name}: keep one, or give "
            f"a template of its names, such as {folder / 'img_{:05}.jpg'}"
        )
    for earlier, later in pairwise(pictures):
        if later.number == earlier.number:
            raise VideoReadError(
                f"{folder} has number {later.number} twice, {earlier.name} and {later.name}: keep one"
            )
        if later.number > earlier.number + 1:
            raise VideoReadError(
                f"{folder} has no picture of number {earlier.number + 1}, between {earlier.name} and {later.name}: "
                "extract the frames again, or number the files without gaps"
            )
    return [picture.name for picture in pictures]


def num_pictures(folder: Path) -> int:
    """Return how many numbered pictures a folder holds.

    Raises:
        OSError: If it cannot be listed.
    """
    return sum(parse_picture(name) is not None for name in os.listdir(folder))


class PictureReader(Closing):
    """The numbered pictures of a folder, read by frame index: what `VideoReader` is for a file.

    Without times of their own, frames are shown 25 a second. Keeps no frames. That all pictures have one size is
    checked as they are read.
    """

    def __init__(self, folder: str | os.PathLike[str], template: str | None = None) -> None:
        """List the pictures and open the first.

        Args:
            folder: The folder.
            template: The form of their names where the folder has others too, such as `img_{:05}.jpg`.

        Raises:
            VideoReadError: If the folder cannot be listed, its pictures are no video (see `ordered_pictures`), or the
                first cannot be read.
        """
        self._folder = Path(folder)
        try:
            names = os.listdir(self._folder)
        except OSError as error:
            raise VideoReadError(f"{self._folder} cannot be listed: {error.strerror or error}") from None
        self._names = ordered_pictures(self._folder, names, template)
        self._is_closed = False
        width, height = self._taken(0, _shown_size)
        codec = Path(self._names[0]).suffix.lower().removeprefix(".")
        self._info = VideoInfo(
            path=self._folder if template is None else self._folder / template,
            width=width,
            height=height,
            num_frames_claimed=len(self._names),
            frame_rate=PICTURES_A_SECOND,
            duration_seconds=len(self._names) / PICTURES_A_SECOND,
            codec="jpeg" if codec == "jpg" else codec,
            rotation_degrees=0,
            is_mirrored=False,
            stream_index=0,
            has_audio=False,
        )

    @property
    def info(self) -> VideoInfo:
        """Facts of the video; the codec is the kind of the pictures."""
        return self._info

    def __len__(self) -> int:
        return len(self._names)

    @property
    def timestamps_seconds(self) -> NDArray[np.float64]:
        """`[len]`, time at which each frame is shown: 25 a second, 0 for the first."""
        return np.arange(len(self._names)) / PICTURES_A_SECOND

    def frames(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, size: tuple[int, int] | None = None
    ) -> ByteArray:
        """Read frames by index.

        Args:
            indices: T frame indices in `[0, len)`, in any order, repeats allowed.
            size: Height and width to scale to, pixels, bilinear with antialiasing; None: the pictures' own size.

        Returns:
            `[T, H, W, 3]` uint8 RGB, in the order asked.

        Raises:
            VideoReadError: If there is no such frame, or a picture cannot be read or has another size.
            ConfigError: If the size is not positive.
        """
        height, width = checked_size(size) or (self._info.height, self._info.width)
        if self._is_closed:
            raise VideoReadError(f"{self._folder} was closed: read frames before leaving the reader's with block")
        wanted = np.asarray(indices, np.int64).reshape(-1)
        for number in wanted[(wanted < 0) | (wanted >= len(self))][:1]:
            raise VideoReadError(f"frame {number} was asked of {self._folder}, which has frames 0 to {len(self) - 1}")
        needed, rows = np.unique(wanted, return_inverse=True)
        found = np.empty((len(needed), height, width, 3), np.uint8)
        for row, number in enumerate(needed.tolist()):
            frame = self._sized(number)
            if size is not None:
                frame = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
            found[row] = frame
        return found[rows]

    def frames_in_order(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], *, threads: int = 1
    ) -> Iterator[ByteArray]:
        """Iterate over some frames, one in memory at a time, in one thread; see `VideoReader.frames_in_order`."""
        for number in np.asarray(indices, np.int64).reshape(-1).tolist():
            yield self.frames([number])[0]

    def all_frames(self) -> Iterator[ByteArray]:
        """Iterate over all frames, one in memory at a time, `[H, W, 3]` uint8 RGB."""
        for number in range(len(self)):
            yield self._sized(number)

    def close(self) -> None:
        """End reading; may be called twice. No file is open between two reads."""
        self._is_closed = True

    def _sized(self, number: int) -> ByteArray:
        frame = self._taken(number, _pixels)
        if frame.shape[:2] != (self._info.height, self._info.width):
            raise VideoReadError(
                f"{self._folder / self._names[number]} has {frame.shape[1]}x{frame.shape[0]} pixels, and "
                f"{self._names[0]} has {self._info.width}x{self._info.height}: pictures of one video have one size"
            )
        return frame

    def _taken(self, number: int, take: Callable[[Image.Image], Taken]) -> Taken:
        """Open a picture and take something of it."""
        path = self._folder / self._names[number]
        try:
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):  # Pillow would clip their values
                    raise VideoReadError(f"{path} has more than 8 bits a channel: write it with 8")
                return take(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise VideoReadError(f"{path} is a picture that cannot be read: {reason}") from None


def _shown_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as shown, without decoding the picture."""
    width, height = image.size
    return (height, width) if image.getexif().get(ExifTags.Base.Orientation) in _TURNED else (width, height)


def _pixels(image: Image.Image) -> ByteArray:
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
