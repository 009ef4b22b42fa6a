"""Charts as elements of a page: colours of the page, names of their own, nothing from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from videomae.report.svg import CSS_VARIABLES, INK, SERIES, Svg, draw_chart, printable


def drawing(text: str = "a name", alt: str = "a line") -> Svg:
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=SERIES[0], label=text)
        axes.set_title(text, color=INK)
        axes.grid(visible=True)
        axes.legend()

    return draw_chart(draw, alt=alt)


def test_chart_is_one_element_without_size_font_and_foreign_address() -> None:
    markup = drawing().markup
    root = ElementTree.fromstring(markup)
    assert root.tag == "svg"
    assert sorted(root.attrib) == ["aria-label", "class", "role", "viewBox"]
    tags = {element.tag for element in root.iter()}
    assert tags <= {"svg", "g", "defs", "path", "use", "text", "clipPath", "rect"}
    assert "http" not in markup
    assert "font-family" not in markup
    assert "DejaVu" not in markup


def test_colours_are_the_pages_variables() -> None:
    markup = drawing().markup
    for colour, variable in CSS_VARIABLES.items():
        assert colour not in markup
        assert re.fullmatch(r"var\(--[a-z0-9-]+\)", variable)
    for used in ("var(--series-1)", "var(--ink)", "var(--muted)", "var(--line)"):
        assert used in markup
    drawn = set(re.findall(r"#[0-9a-f]{6}\b", markup))
    assert drawn == set(), "every colour that is drawn must follow the page"


@pytest.mark.parametrize(
    "text", ["<b>&\"'</b>", "$x^2$ is no formula", "a_b%{}\\frac", "d\u00e9j\u00e0 \u8996\u983b"]
)
@pytest.mark.filterwarnings("error")
def test_text_stays_what_it_is(text: str) -> None:
    root = ElementTree.fromstring(drawing(text, alt=text).markup)
    assert [element.text for element in root.iter("text")].count(text) == 2
    assert root.attrib["aria-label"] == text


def test_every_reference_is_to_a_name_in_the_chart_and_names_of_charts_differ() -> None:
    first, second = drawing("one").markup, drawing("two").markup
    for markup in (first, second):
        names = re.findall(r' id="([^"]+)"', markup)
        assert len(names) == len(set(names)) > 0
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', markup)) != set()
        used = {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', markup)}
        assert used == set(names)
    assert not set(re.findall(r' id="([^"]+)"', first)) & set(re.findall(r' id="([^"]+)"', second))


def test_the_same_drawing_gives_the_same_text() -> None:
    assert drawing() == drawing()


def test_drawing_leaves_matplotlibs_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    drawing()
    assert dict(matplotlib.rcParams) == before


def test_drawing_never_imports_pyplot_nor_needs_a_display() -> None:
    code = (
        "import sys; from videomae.report.figures import Curve, loss_curves; "
        "loss_curves([Curve('a', [1, 2], [1, 2])]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


def test_characters_that_no_page_may_hold_are_replaced() -> None:
    assert printable("a\x00b\x1bc\udcffd\uffff") == "a\ufffdb\ufffdc\ufffdd\ufffd"
    assert printable("tab\tline\nd\u00e9j\u00e0 \U0001f3ac") == "tab\tline\nd\u00e9j\u00e0 \U0001f3ac"
