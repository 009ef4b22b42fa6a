"""The page of timelines: the video, classes over time above a strip of frames, events; a click plays the place.

Unlike the other pages it needs a script, a dozen lines that set the player's time; the page allows no other script,
and nothing but media from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jinja2
import numpy as np

from videomae import __version__
from videomae.report.page import video_address, write_report
from videomae.report.svg import DARK, LIGHT, printable
from videomae.timeline.annotate import clock
from videomae.timeline.events import Event
from videomae.timeline.timeline import FloatArray, Timeline
from videomae.timeline.writers import shown_labels
from videomae.wording import counted

TEMPLATE = "timeline.html.j2"
MAX_POINTS = 1500  # of a curve; of more windows the highest and the lowest of neighbouring ones are drawn
MAX_EVENTS = 500  # in the table of a video
MAX_PANELS = 100  # videos in full, each some 90 KB; the list above them has all
TICK_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)
MAX_TICKS = 8
WIDTH, HEIGHT = 1000.0, 160.0  # of the chart in its own units
# As in the charts of the other pages, and four more that can be told from those.
LIGHT_COLORS = (*LIGHT.series, "#b3831a", "#c2377a", "#5a6675", "#0f8da0")
DARK_COLORS = (*DARK.series, "#e3bd63", "#ff85b8", "#9aa7b6", "#63cfe0")


@dataclass(frozen=True)
class Curve:
    """One class on the chart."""

    label: str
    """Its name."""
    color: int
    """Which of the colors."""
    points: str
    """Of an SVG polyline."""
    spans: tuple[tuple[float, float], ...]
    """Left edge and width of each event, in the chart's units."""


@dataclass(frozen=True)
class Panel:
    """One video on the page."""

    number: int
    """Which of the page's videos, from 1."""
    timeline: Timeline
    """What is shown."""
    address: str
    """The video, for the player."""
    strip: str
    """Data address of the small frames; empty without."""
    curves: tuple[Curve, ...]
    """The classes that matter."""
    ticks: tuple[tuple[float, str], ...]
    """Place in percent and time of marks along the axis."""

    @property
    def begin(self) -> float:
        """Time at the left end, seconds."""
        return float(self.timeline.start_seconds[0])

    @property
    def end(self) -> float:
        """Time at the right end."""
        return float(self.timeline.end_seconds[-1])


@dataclass(frozen=True)
class Line:
    """One video in the list of all."""

    number: int
    """Which of the page's videos, from 1."""
    timeline: Timeline
    """The video."""
    is_shown: bool
    """Whether it is shown in full, further down."""

    @property
    def surest(self) -> Event | None:
        """The event with the highest score; None without events."""
        return max(self.timeline.events, key=lambda event: event.peak, default=None)


def write_timeline_page(path: Path, timelines: Sequence[Timeline]) -> None:
    """Write the page of one or more videos; the videos stay where they are, the page names them beside itself.

    Raises:
        RunError: If it cannot be written.
    """
    write_report(path, render_timelines(timelines, folder=path.absolute().parent))


def render_timelines(timelines: Sequence[Timeline], *, folder: Path) -> str:
    """Return the page as HTML text.

    Args:
        timelines: What to show, each with at least one window.
        folder: Where the page will lie, from which the players find the videos.
    """
    environment = _environment()
    script, _, _ = environment.loader.get_source(environment, "timeline.js")  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    lines = chosen_lines(timelines)
    colors = label_colors([one.timeline for one in lines if one.is_shown])
    html = environment.get_template(TEMPLATE).render(
        lines=lines,
        panels=[panel(one, folder, colors) for one in lines if one.is_shown],
        version=__version__,
        light=LIGHT,
        dark=DARK,
        light_colors=LIGHT_COLORS,
        dark_colors=DARK_COLORS,
        width=WIDTH,
        height=HEIGHT,
        max_events=MAX_EVENTS,
        clock=clock,
        counted=counted,
        script=script,
        script_hash=digest,
    )
    return printable(html)


def chosen_lines(timelines: Sequence[Timeline]) -> list[Line]:
    """Return the list of all videos, in order; of more than `MAX_PANELS` those with the surest events are shown."""
    lines = [Line(k, one, True) for k, one in enumerate((one for one in timelines if len(one.seconds)), start=1)]
    surest = sorted(lines, key=lambda line: -(line.surest.peak if line.surest else 0.0))[:MAX_PANELS]
    shown = {line.number for line in surest}
    return [replace(line, is_shown=line.number in shown) for line in lines]


def label_colors(timelines: Sequence[Timeline]) -> dict[int, int]:
    """Return a color for each class that is shown, the same in all videos; empty where there are too many."""
    shown = list(dict.fromkeys(label_id for one in timelines for label_id in shown_labels(one)))
    return {} if len(shown) > len(LIGHT_COLORS) else {label_id: color for color, label_id in enumerate(shown)}


def panel(line: Line, folder: Path, colors: Mapping[int, int]) -> Panel:
    """Return what the page shows of a video; classes without a color of the page's get one by their rank in it."""
    timeline = line.timeline
    begin, end = float(timeline.start_seconds[0]), float(timeline.end_seconds[-1])
    scale = WIDTH / max(end - begin, 1e-9)
    curves = []
    for rank, label_id in enumerate(shown_labels(timeline)):
        events = [event for event in timeline.events if event.label_id == label_id]
        spans = tuple(
            (round((event.start_seconds - begin) * scale, 2), round(max(event.seconds * scale, 1.0), 2))
            for event in events
        )
        points = _points((timeline.seconds - begin) * scale, timeline.curves[:, label_id])
        curves.append(Curve(timeline.labels[label_id], colors.get(label_id, rank), points, spans))
    strip = f"data:image/jpeg;base64,{base64.b64encode(timeline.strip).decode('ascii')}" if timeline.strip else ""
    address = video_address(timeline.video.path, folder)
    return Panel(line.number, timeline, address, strip, tuple(curves), _ticks(begin, end))


def _points(places: FloatArray, scores: FloatArray) -> str:
    """Return a polyline with at most `MAX_POINTS` points that keeps the extremes; of one window, a level line."""
    if len(scores) > MAX_POINTS:
        parts = np.array_split(np.arange(len(scores)), MAX_POINTS // 2)
        kept = {int(part[choose(scores[part])]) for part in parts for choose in (np.argmin, np.argmax)}
        chosen = np.array(sorted(kept))
        places, scores = places[chosen], scores[chosen]
    heights = HEIGHT * (1 - scores)
    if len(scores) == 1:  # a line of one point is not drawn
        places, heights = np.array([0.0, WIDTH]), np.repeat(heights, 2)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places.tolist(), heights.tolist(), strict=True))


def _ticks(begin: float, end: float) -> tuple[tuple[float, str], ...]:
    """Return marks at round times, four to eight of them."""
    length = max(end - begin, 1e-9)
    step = next((one for one in TICK_SECONDS if length / one <= MAX_TICKS), length)
    times = [step * number for number in range(math.ceil(begin / step), int(end / step) + 1)]
    names = [clock(time).split(".")[0] if step >= 1 else f"{time:.1f}" for time in times]
    return tuple((round(100 * (time - begin) / length, 3), name) for time, name in zip(times, names, strict=True))


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("videomae.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
