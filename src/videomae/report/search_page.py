"""Pages of places in videos: what a search found, and pairs of copies. Each place is played where it is clicked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videomae.errors import VideoReadError
from videomae.inference.windows import open_as_far_as_whole
from videomae.report.figures import thumbnail
from videomae.report.page import (
    Player,
    Players,
    Section,
    Table,
    Text,
    player_address,
    render_report,
    versions,
    write_report,
)
from videomae.search.dedupe import DedupeResult
from videomae.search.query import Match
from videomae.video.opening import split_name
from videomae.wording import counted

MAX_PAIRS = 200  # on the page; the JSON file has all


def write_search_page(
    path: Path,
    matches: Sequence[Match],
    *,
    query: str,
    span: tuple[float, float],
    unfinished: Sequence[str] = (),
) -> None:
    """Write what a search found.

    Args:
        path: The page.
        matches: Nearest first.
        query: The clip that was searched for.
        span: Start and end of it in seconds.
        unfinished: Tables of the index that do not hold all of their videos yet.

    Raises:
        RunError: If it cannot be written.
    """
    players = [
        video_player(one.path, one.start, one.end, path.parent, note=f"similarity {one.similarity:.3f}")
        for one in matches
    ]
    rows = [
        (rank, one.path, f"{one.start:.2f}", f"{one.end:.2f}", f"{one.similarity:.3f}")
        for rank, one in enumerate(matches, start=1)
    ]
    name = split_name(query)[0]
    sections = [
        Section("Looked for", [Players([video_player(name, *span, path.parent, note="the clip")])]),
        Section("Found", [Players(players)]),
        Section("As a table", [Table(("rank", "video", "start", "end", "similarity"), rows), versions()]),
    ]
    summary = f"{counted(len(matches), 'place')} like {name}, {span[0]:.1f} to {span[1]:.1f} s."
    if unfinished:
        summary += f" Not all was searched: {', '.join(unfinished)} is unfinished."
    write_report(path, render_report("Search", sections, summary=summary))


def write_copies_page(path: Path, result: DedupeResult) -> None:
    """Write the pairs of copies that were found.

    Raises:
        RunError: If it cannot be written.
    """
    blocks: list[Players | Text | Table] = []
    for pair in result.pairs[:MAX_PAIRS]:
        first = max(0.0, -pair.offset / pair.speed)
        second = pair.speed * first + pair.offset
        still = ", nothing moves: a copy, or another recording of this view" if pair.is_still else ""
        note = f"score {pair.score:.2f}, {pair.overlap:.1f} s in common{still}"
        blocks.append(
            Players([
                video_player(pair.one, first, first + pair.overlap, path.parent, note=note),
                video_player(
                    pair.other,
                    second,
                    second + pair.speed * pair.overlap,
                    path.parent,
                    note=f"offset {pair.offset:+.2f} s, speed {pair.speed:.2f}",
                ),
            ])
        )  # fmt: skip
    if not blocks:
        blocks = [Text("No two videos show the same.")]
    if len(result.pairs) > MAX_PAIRS:
        blocks.append(Text(f"The surest {MAX_PAIRS} of {len(result.pairs)} pairs; a .json file has all."))
    if result.is_stopped:
        blocks.insert(
            0, Text("Stopped before all videos were read and compared: --resume continues.", is_warning=True)
        )
    rows = [(one.path, one.reason) for one in result.bad]
    sections = [Section("Copies", blocks)]
    if rows:
        sections.append(Section("Not read, or not to the end", [Table(("video", "why"), rows)]))
    num_still = sum(one.is_still for one in result.pairs)
    summary = (
        f"{counted(len(result.pairs) - num_still, 'pair')} of copies among {counted(result.num_videos, 'video')}."
    )
    if num_still:
        summary += f" In {counted(num_still, 'more pair')}, nothing moves: copies, or other recordings of one view."
    write_report(path, render_report("Copies", [*sections, Section("Made with", [versions()])], summary=summary))


def video_player(path: str, start: float, end: float, folder: Path, *, note: str) -> Player:
    """Return the player of a part of a video, with a frame from its middle where it can be read."""
    name = split_name(path)[0]
    address = player_address(name, start, end, folder)
    thumb = _middle_frame(name, (start + end) / 2)
    return Player(Path(name).name, f"{start:.1f} to {end:.1f} s, {note}", address, thumb)


def _middle_frame(path: str, second: float) -> str | None:
    try:
        with open_as_far_as_whole(path) as (reader, _):
            times = reader.timestamps_seconds
            index = int(np.clip(np.searchsorted(times, second), 0, len(times) - 1))
            return thumbnail(reader.frames([index])[0])
    except VideoReadError:
        return None
