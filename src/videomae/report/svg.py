"""From a matplotlib drawing to a chart for a page, in the colors of a light and of a dark page.

A page shows each as an image of its own, in which nothing of one chart can meet anything of another or of the page.
Drawings use matplotlib's `Figure` alone, so nothing needs a display or touches the state of pyplot.
"""

from __future__ import annotations

import base64
import io
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHART_INCHES = (5.6, 3.3)  # 403 points wide: 10 point text is still about 9 pixels high on a phone of 360
FONT_POINTS = 10.5


@dataclass(frozen=True)
class Theme:
    """Colors of a page and of its charts, as CSS writes them."""

    ink: str
    """Text."""
    muted: str
    """Text of less weight, such as labels of axes."""
    line: str
    """Borders, axes and grids."""
    series: tuple[str, str, str, str]
    """Curves, in order; a fifth takes the first again."""


LIGHT = Theme("#16202c", "#5a6675", "#d9dee5", ("#1f6feb", "#d9622b", "#1a8f67", "#8a4fc7"))
DARK = Theme("#e6ebf1", "#9aa7b6", "#303b48", ("#6aa6ff", "#ff9b66", "#4fcfa2", "#c49bf2"))

_DARK_FOR = {
    LIGHT.ink: DARK.ink,
    LIGHT.muted: DARK.muted,
    LIGHT.line: DARK.line,
    **dict(zip(LIGHT.series, DARK.series, strict=True)),
}
_TAG = re.compile(r"<\w[^<>]*>")  # and never text, which may look like a color
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_LOCK = threading.Lock()  # matplotlib's settings are one for the process
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True)
class Svg:
    """A chart, ready to be shown in a page."""

    light: str
    """SVG file for a light page, as text."""
    dark: str
    """The same in the colors of a dark one."""
    alt: str
    """What the chart shows, for those who cannot see it."""

    @property
    def light_address(self) -> str:
        """`light` as a data address."""
        return _address(self.light)

    @property
    def dark_address(self) -> str:
        """`dark` as a data address."""
        return _address(self.dark)


def draw_chart(draw: Callable[[Axes, Theme], None], *, alt: str, inches: tuple[float, float] = CHART_INCHES) -> Svg:
    """Draw on new axes, for both themes.

    Args:
        draw: Called once, with the axes and the colors. It draws in these alone, since the drawing for a dark page
            has others in their place. Names that it draws should have passed `printable`.
        alt: What the chart shows.
        inches: Width and height; they set the proportions and how large the text is beside them.

    Returns:
        Both drawings. The same drawing gives the same text, byte for byte.
    """
    light = _drawn(draw, LIGHT, inches)
    return Svg(light, _TAG.sub(_darkened, light), printable(alt))


def printable(text: str) -> str:
    """Replace what may not stand in a page: control characters and bytes of file names that are no text."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _drawn(draw: Callable[[Axes, Theme], None], theme: Theme, inches: tuple[float, float]) -> str:
    stream = io.StringIO()
    with _LOCK, matplotlib.rc_context(_settings(theme)), warnings.catch_warnings():
        # The text is drawn by whoever shows the page; that matplotlib's font lacks a letter only shifts the layout.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot(), theme)
        nothing_of_the_day = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing_of_the_day)
    return stream.getvalue()


def _darkened(tag: re.Match[str]) -> str:
    """Return a tag in the dark colors: drawing once more would take as long again."""
    return _COLOR.sub(lambda found: _DARK_FOR.get(found[0], found[0]), tag[0])


def _settings(theme: Theme) -> dict[Any, Any]:
    sizes = ("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    muted = ("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    lines = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    return {
        **dict.fromkeys(sizes, FONT_POINTS),
        **dict.fromkeys(muted, theme.muted),
        **dict.fromkeys(lines, theme.line),
        "text.color": theme.ink,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "videomae",  # else names in the file are random
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
        "legend.frameon": False,
    }


def _address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode('utf-8')).decode('ascii')}"
