"""Versions of a clip as one image: a row of frames for each, with a label that says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE_PIXELS = (144, 256)  # smaller frames are enlarged by whole numbers, larger ones reduced
GAP, MARGIN = 6, 18
FONT_PIXELS = 20
LINE_PIXELS = 30
PAPER, INK, MUTED, WARNING = (255, 255, 255), (20, 24, 31), (95, 104, 117), (176, 64, 20)


@dataclass(frozen=True)
class StripRow:
    """One version of the clip."""

    label: str
    """Stands above the frames."""
    frames: NDArray[np.uint8]
    """`[n, H, W, 3]`, of one size in all rows."""
    is_warning: bool = False
    """Draw the label in the color of warnings."""


def draw_strip(rows: Sequence[StripRow], *, heading: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Draw rows of frames below each other.

    Args:
        rows: At least one, each of as many frames as there are columns.
        heading: Lines above everything, the first of them darkest.
        columns: A few letters above each column.

    Returns:
        An RGB image.
    """
    font = ImageFont.load_default(FONT_PIXELS)
    tile = _tile_size(rows[0].frames.shape[2], rows[0].frames.shape[1])
    texts = [_drawable(text) for text in (*heading, *(row.label for row in rows))]
    images_width = len(columns) * (tile[0] + GAP) - GAP
    width = 2 * MARGIN + max(images_width, *(int(font.getlength(text)) + 1 for text in texts))
    header = MARGIN + LINE_PIXELS * (len(heading) + 1) + GAP
    row_height = LINE_PIXELS + tile[1] + 2 * GAP
    canvas = Image.new("RGB", (width, header + len(rows) * row_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    for line, text in enumerate(texts[: len(heading)]):
        draw.text((MARGIN, MARGIN + line * LINE_PIXELS), text, fill=MUTED if line else INK, font=font)
    lefts = [MARGIN + number * (tile[0] + GAP) for number in range(len(columns))]
    for left, text in zip(lefts, columns, strict=True):
        draw.text((left, header - LINE_PIXELS), _drawable(text), fill=MUTED, font=font)
    for number, row in enumerate(rows):
        top = header + number * row_height
        draw.text((MARGIN, top), _drawable(row.label), fill=WARNING if row.is_warning else INK, font=font)
        for left, frame in zip(lefts, row.frames, strict=True):
            canvas.paste(_tile(frame, tile), (left, top + LINE_PIXELS))
    return canvas


def _drawable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)  # surrogates of file names are not printable


def _tile_size(width: int, height: int) -> tuple[int, int]:
    smallest, largest = TILE_PIXELS
    if width < smallest:
        factor: float = -(-smallest // width)  # rounded up
    else:
        factor = min(1.0, largest / width)
    return round(width * factor), max(round(height * factor), 1)


def _tile(frame: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(frame)
    if image.size == size:
        return image
    # Enlarged patches keep their hard edges: what is one pixel in the model's input looks like one.
    enlarged = size[0] > image.width
    return image.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)
