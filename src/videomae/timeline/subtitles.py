"""Events as subtitles: SubRip and WebVTT."""

from __future__ import annotations

import re

from videomae.timeline.annotate import clock
from videomae.timeline.timeline import Timeline

_LINE_BREAKS = re.compile(r"\s+")


def srt_text(timeline: Timeline) -> str:
    """Return the events of a video as SubRip: a cue for each, with its label and its mean score."""
    cues = [
        f"{number}\n{_padded(one.start_seconds, ',')} --> {_padded(one.end_seconds, ',')}\n"
        f"{_plain(one.label)} {one.mean:.0%}\n"
        for number, one in enumerate(timeline.events, start=1)
    ]
    return "\n".join(cues)


def vtt_text(timeline: Timeline) -> str:
    """Return the events of a video as WebVTT."""
    cues = [
        f"{_padded(one.start_seconds, '.')} --> {_padded(one.end_seconds, '.')}\n"
        f"{_escaped(_plain(one.label))} {one.mean:.0%}\n"
        for one in timeline.events
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _padded(seconds: float, decimal: str) -> str:
    return clock(max(seconds, 0.0), decimal=decimal).rjust(12, "0")


def _plain(label: str) -> str:
    return _LINE_BREAKS.sub(" ", label).strip() or "?"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
