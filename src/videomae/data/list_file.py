"""Lists without a first line of names, as the original VideoMAE and VideoMAE V2 read them: a path and whole numbers.

    folder/a.mp4 3             a video and its class id
    folder/a.mp4 0 -1          a video to pre-train on (V2)
    frames/a 1 120             a folder of frames, the number of its first frame and how many there are (V2)
    frames/a 120 3             a folder of frames, how many there are and its class id (V2)
    folder/a.mp4               a video

The numbers stand at the end of a line, so that a path may have spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from videomae.video.probe import VIDEO_SUFFIXES

_LINE = re.compile(r"(?P<path>.*?\S)(?P<numbers>(?:[ \t]+-?\d+){1,2})[ \t]*")


class ListLine(NamedTuple):
    """A line of a list."""

    line: int
    """Its number, from 1."""
    path: str
    """The video or folder of frames, as it is written."""
    label: str
    """The class id as text; empty where there is none."""
    num_frames: str
    """How many frames there are, as text; empty where nothing says it."""


def is_list(first_line: str) -> bool:
    """Tell whether a file begins as such a list: with a line that ends in whole numbers, or is a video's path."""
    text = first_line.strip()
    found = _LINE.fullmatch(text)
    if found is not None:
        return "," not in text or _is_video(found["path"])  # else a column's name ends in a number
    return _is_video(text) and "," not in text


def parse_list(lines: Sequence[str]) -> list[ListLine]:
    """Tell paths, labels and numbers of frames apart; empty lines are skipped.

    Two numbers behind a path are V2's start and length where the second is negative, or the first is the same in all
    lines and 0 or 1; else a length and a class id. One number is a class id.

    Args:
        lines: Of the file, from the first.
    """
    found = [_parsed(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    pairs = [numbers for _, _, numbers in found if len(numbers) == 2]
    firsts = {numbers[0] for numbers in pairs}
    are_starts = len(firsts) == 1 and firsts <= {"0", "1"} and len(pairs) > 1
    rows = []
    for line, path, numbers in found:
        label = length = ""
        if len(numbers) == 2:
            is_start = are_starts or numbers[1].startswith("-")
            length, label = (numbers[1], "") if is_start else numbers
        elif numbers:
            label = numbers[0]
        rows.append(ListLine(line, path, _counted(label), _counted(length)))
    return rows


def _parsed(line: int, text: str) -> tuple[int, str, list[str]]:
    found = _LINE.fullmatch(text)
    return (line, text, []) if found is None else (line, found["path"], found["numbers"].split())


def _counted(number: str) -> str:
    """Return a number that counts something; -1 stands for nothing."""
    return "" if number.startswith("-") else number


def _is_video(text: str) -> bool:
    return PurePosixPath(text).suffix.lower() in VIDEO_SUFFIXES
