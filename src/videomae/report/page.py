"""A self-contained HTML page of results: one file, no script, nothing fetched from anywhere.

A page is a title and sections; a section is a title and blocks, each a small dataclass below. All text is escaped by
the template, and no markup is taken from outside. The page forbids itself scripts and foreign addresses, so that a
mistake there could load nothing either; one with players allows itself video files.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import jinja2

from videomae import __version__
from videomae.atomic import write_text_atomic
from videomae.errors import RunError
from videomae.report.svg import DARK, LIGHT, Svg, printable
from videomae.video.addresses import address_of
from videomae.video.opening import split_name

TEMPLATE = "report.html.j2"
VERSIONS_OF = ("torch", "numpy", "av", "safetensors")  # packages whose version a result may depend on
NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*(?:e[-+]?[0-9]+)? ?%?")
DATA_ADDRESS = re.compile(r"data:image/(?:png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    """Plain text."""
    is_warning: bool = False
    """Set apart, as something to know before trusting the rest."""


@dataclass(frozen=True)
class Facts:
    """Names and values, such as settings."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, object]
    """In order; values are shown as `str` gives them, floats shortened."""
    caption: str = ""
    """Above the list."""

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Names and values as text."""
        return [(name, shown(value)) for name, value in self.facts.items()]


@dataclass(frozen=True)
class Table:
    """Rows under headings."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    """Headings."""
    rows: Sequence[Sequence[object]]
    """Cells; floats are shortened. A column that starts with a number is aligned to the right."""
    caption: str = ""
    """Above the table."""

    def __post_init__(self) -> None:
        """Check the shape."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells, the table has {len(self.columns)} columns: {row!r}")

    @property
    def cells(self) -> list[list[str]]:
        """Text of each cell."""
        return [[shown(cell) for cell in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether its first cell is a number or a percentage."""
        if not self.rows:
            return [False] * len(self.columns)
        return [bool(NUMBER.fullmatch(shown(cell))) for cell in self.rows[0]]


@dataclass(frozen=True)
class Chart:
    """A drawing."""

    kind: ClassVar[str] = "chart"
    svg: Svg
    """From `figures`."""
    caption: str = ""
    """Below it."""


@dataclass(frozen=True)
class Image:
    """An image; one wider than the page is scrolled, not shrunk."""

    kind: ClassVar[str] = "image"
    address: str
    """From `figures.png_address`, `figures.thumbnail` or `thumbnails.moving_thumbnail`."""
    alt: str
    """What it shows, for those who cannot see it."""
    caption: str = ""
    """Below it."""
    min_pixels: int = 0
    """Width below which it is scrolled."""

    def __post_init__(self) -> None:
        """Check the address."""
        _check_address(self.address)


@dataclass(frozen=True)
class PredictionCard:
    """A video with what was predicted for it."""

    name: str
    """The file."""
    predicted: str
    """Most probable class."""
    probability: float
    """Of that class, in [0, 1]."""
    true_label: str | None = None
    """None where it is not known."""
    thumbnail: str | None = None
    """From `figures.thumbnail` or `thumbnails.moving_thumbnail`."""

    def __post_init__(self) -> None:
        """Check range and address."""
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"the probability of {self.predicted!r} is {self.probability}; it must be in [0, 1]")
        if self.thumbnail is not None:
            _check_address(self.thumbnail)

    @property
    def verdict(self) -> str:
        """One of right, wrong, unknown."""
        if self.true_label is None:
            return "unknown"
        return "right" if self.predicted == self.true_label else "wrong"


@dataclass(frozen=True)
class Gallery:
    """Cards beside and below each other."""

    kind: ClassVar[str] = "gallery"
    cards: Sequence[PredictionCard]
    """In order."""
    caption: str = ""
    """Above them."""


@dataclass(frozen=True)
class Player:
    """A place in a video, played where it is clicked; the video stays where it is."""

    name: str
    """The video, and where in it."""
    note: str
    """Below the name."""
    address: str
    """Of the video from the page's folder, with `#t=START,END`; see `player_address`."""
    thumbnail: str | None = None
    """From `figures.thumbnail`; what is shown before it plays."""

    def __post_init__(self) -> None:
        """Check the address."""
        if self.thumbnail is not None:
            _check_address(self.thumbnail)


@dataclass(frozen=True)
class Players:
    """Players beside and below each other."""

    kind: ClassVar[str] = "players"
    players: Sequence[Player]
    """In order."""
    caption: str = ""
    """Above them."""


@dataclass(frozen=True)
class Command:
    """A command line, ready to be copied."""

    kind: ClassVar[str] = "command"
    arguments: Sequence[str]
    """Program and arguments; quoted here where a shell needs it."""
    caption: str = ""
    """Above it."""

    @property
    def line(self) -> str:
        """The command as one line for a POSIX shell."""
        return shlex.join(self.arguments)


Block = Text | Facts | Table | Chart | Image | Gallery | Players | Command


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    """The heading."""
    blocks: Sequence[Block] = field(default_factory=tuple)
    """In order."""


def render_report(title: str, sections: Sequence[Section], *, summary: str = "") -> str:
    """Render a page.

    Args:
        title: Heading of the page and name of its tab.
        sections: In order.
        summary: A sentence below the title.

    Returns:
        HTML text, whole in itself, the same for the same input.
    """
    html = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            title=title,
            summary=summary,
            sections=sections,
            plays=any(isinstance(block, Players) for section in sections for block in section.blocks),
            version=__version__,
            light=LIGHT,
            dark=DARK,
        )
    )
    return printable(html)


def video_address(path: str, folder: Path) -> str:
    """Return how a page in a folder names a video: relative to it, so that both may move together."""
    name = split_name(path)[0]
    if address_of(name) is not None:
        return name
    whole = Path(name).absolute()
    try:
        return quote(Path(os.path.relpath(whole, folder.absolute())).as_posix())
    except ValueError:  # another drive
        return whole.as_uri()


def player_address(path: str, start: float, end: float, folder: Path) -> str:
    """Return how a page in a folder names a part of a video, in seconds."""
    return f"{video_address(path, folder)}#t={start:.2f},{end:.2f}"


def write_report(path: Path, html: str) -> None:
    """Write a page atomically.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        write_text_atomic(path, html)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


def versions() -> Facts:
    """Return what the numbers were made with: this package, its libraries, Python and the machine."""
    found: dict[str, object] = {"videomae": __version__, "python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return Facts({**found, "machine": f"{platform.system()} {platform.machine()}"}, caption="Versions")


def flat_settings(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Turn nested settings into `a.b.c` names, for `Facts`; floats become text that gives them exactly."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_settings(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = _exact(value)
    return flat


def shown(value: object) -> str:
    """Return a value as text: floats with four figures, lists with commas."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(one) for one in value)
    return "none" if value is None else str(value)


def _exact(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_exact(one) for one in value)
    return repr(value) if isinstance(value, float) else value


def _check_address(address: str) -> None:
    if not DATA_ADDRESS.fullmatch(address):
        raise ValueError(
            f"the image's address {address[:40]!r} is no PNG, JPEG or WebP data: make it with report.figures"
        )


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("videomae.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
