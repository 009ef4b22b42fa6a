"""From a matplotlib drawing to an `<svg>` element that belongs in a page.

Drawings use matplotlib's `Figure` alone, so nothing needs a display or touches the state of pyplot. The colours a
chart is drawn in are names in disguise: they become CSS variables, so that one chart is right on a light and on a
dark page. Knows nothing of what is drawn.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colour to draw in -> CSS variable. The values are arbitrary but for being unlike any that matplotlib adds.
INK, MUTED, LINE = "#010101", "#010102", "#010103"
SERIES = ("#010111", "#010112", "#010113", "#010114")
CSS_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}

CHART_INCHES = (5.6, 3.3)  # 403 points wide: 10 point text is still about 9 pixels high on a phone of 360
FONT_POINTS = 10.5

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "xtick.labelsize": FONT_POINTS,
    "ytick.labelsize": FONT_POINTS,
    "legend.fontsize": FONT_POINTS,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "legend.frameon": False,
}
_LOCK = threading.Lock()  # matplotlib's settings are one for the process
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")


@dataclass(frozen=True)
class Svg:
    """A chart, ready to stand in a page."""

    markup: str
    """One `<svg>` element, made here from drawn shapes and escaped text, never from outside markup."""
    alt: str
    """What the chart shows, for those who cannot see it."""


def draw_chart(draw: Callable[[Axes], None], *, alt: str, inches: tuple[float, float] = CHART_INCHES) -> Svg:
    """Draw on fresh axes.

    Args:
        draw: Called with the axes. Names that go into it should have passed `printable`.
        alt: What the chart shows.
        inches: Width and height; they set the proportions and how large the text is beside them.

    Returns:
        The element. The same drawing gives the same text, byte for byte.
    """
    alt = printable(alt)
    stream = io.StringIO()
    with _LOCK, matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": alt}), warnings.catch_warnings():
        # The text is drawn by whoever shows the page; that matplotlib's font lacks a letter only shifts the layout.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return Svg(_for_page(stream.getvalue(), alt), alt)


def printable(text: str) -> str:
    """Replace what may not stand in a page: control characters and bytes of file names that are no text."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _for_page(svg: str, alt: str) -> str:
    """Turn a stand-alone SVG file into an element of a page: no sizes, fonts, colours or names of its own."""
    root = ElementTree.fromstring(svg)
    # Names must be unique in the page, which may hold several charts.
    prefix = "c" + hashlib.blake2b(svg.encode("utf-8"), digest_size=6).hexdigest()
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata") or child.find("{*}style") is not None:  # the style would rule the page
                parent.remove(child)
    used = {
        found[1] or found[2]
        for element in root.iter()
        for value in element.attrib.values()
        if (found := _REFERENCE.search(value))
    }
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        element.attrib.clear()
        element.attrib.update({name: _attribute(name, value, prefix) for name, value in attributes.items()})
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"class": "chart", "role": "img", "aria-label": alt, "viewBox": box})
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "style":
        return "; ".join(kept for one in value.split(";") if (kept := _property(one.strip())))
    if name == "href" and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return re.sub(r"url\(#", f"url(#{prefix}-", value)


def _property(declaration: str) -> str:
    """Return a CSS declaration with page colours; the page chooses the font, of which only the size is kept."""
    name, _, value = (part.strip() for part in declaration.partition(":"))
    if name == "font-family":
        return ""
    if name == "font":  # matplotlib before 3.10 writes the shorthand
        size = re.search(r"[\d.]+px", value)
        return f"font-size: {size[0]}" if size else ""
    for colour, variable in CSS_VARIABLES.items():
        value = value.replace(colour, variable)
    return f"{name}: {value}"
