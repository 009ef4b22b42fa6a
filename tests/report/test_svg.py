"""Charts in two themes: the same drawing, the colors of each page, nothing from outside."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from videomae.report.svg import DARK, LIGHT, Svg, Theme, draw_chart, printable


def drawing(text: str = "a name", alt: str = "a line") -> Svg:
    def draw(axes: Any, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.series[0], label=text)
        axes.set_title(text, color=theme.ink)
        axes.grid(visible=True)
        axes.legend()

    return draw_chart(draw, alt=alt)


def colors(theme: Theme) -> list[str]:
    return [theme.ink, theme.muted, theme.line, *theme.series]


def test_a_chart_is_two_files_that_load_nothing() -> None:
    chart = drawing()
    for text, address in ((chart.light, chart.light_address), (chart.dark, chart.dark_address)):
        root = ElementTree.fromstring(text)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "g", "defs", "path", "use", "text", "clipPath", "rect", "style"}
        references = [
            value for element in root.iter() for name, value in element.attrib.items() if name.endswith("href")
        ]
        assert references, "this test sees references"
        assert all(value.startswith("#") for value in references)
        assert "@import" not in text
        assert not re.search(r"url\((?!#)", text)
        kind, _, data = address.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data).decode("utf-8") == text


def test_every_color_is_the_themes_and_nothing_else_differs() -> None:
    chart = drawing()
    for text, theme in ((chart.light, LIGHT), (chart.dark, DARK)):
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) == {*colors(theme)[:3], theme.series[0]}
    names = re.compile(r"\b[mp][0-9a-f]{10}\b")  # matplotlib makes them of what they name, color included
    recolored = names.sub("name", chart.dark)
    for dark, light in zip(colors(DARK), colors(LIGHT), strict=True):
        recolored = recolored.replace(dark, light)
    assert recolored == names.sub("name", chart.light)


@pytest.mark.parametrize(
    "text",
    [
        "<b>&\"'</b>",
        "$x^2$ is no formula",
        "a_b%{}\\frac",
        "d\u00e9j\u00e0 \u8996\u983b",
        LIGHT.ink,
        f'a style="fill: {LIGHT.ink}"',
    ],
)
@pytest.mark.filterwarnings("error")
def test_text_stays_what_it_is(text: str) -> None:
    chart = drawing(text, alt=text)
    for file in (chart.light, chart.dark):
        root = ElementTree.fromstring(file)
        assert [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")].count(text) == 2
    assert chart.alt == text


def test_every_reference_is_to_a_name_in_the_file() -> None:
    text = drawing().light
    names = re.findall(r' id="([^"]+)"', text)
    assert len(names) == len(set(names)) > 0
    used = {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)}
    assert set() != used <= set(names)


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
