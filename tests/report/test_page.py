"""Pages: whole in themselves, everything escaped, nothing that runs or loads."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from videomae.errors import RunError
from videomae.report.figures import Curve, confusion_chart, loss_curves, thumbnail
from videomae.report.page import (
    Chart,
    Command,
    Facts,
    Gallery,
    Image,
    PredictionCard,
    Section,
    Table,
    Text,
    flat_settings,
    render_report,
    shown,
    versions,
    write_report,
)
from videomae.report.svg import DARK, LIGHT

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}"
FRAME = thumbnail(np.zeros((12, 16, 3), dtype=np.uint8))
VOID = {"meta", "img", "br", "hr", "link", "input", "source"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, text, and whether tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, tag: str, name: str) -> list[str | None]:
        return [attributes.get(name) for one, attributes in self.elements if one == tag]


def every_block(text: str) -> list[Section]:
    """Put a text into every place that takes one."""
    return [
        Section(text, [Text(text), Text(text, is_warning=True), Facts({text: text}, caption=text)]),
        Section("tables", [Table([text, "n"], [[text, 3], [text, 0.123456]], caption=text)]),
        Section(
            "charts",
            [
                Chart(loss_curves([Curve(text, [1, 2], [1, 2]), Curve("b", [1, 2], [1, 1])]), text),
                Chart(confusion_chart([[1, 0], [1, 2]], [text, "b"]), text),
                Image(FRAME, text, caption=text, min_pixels=300),
            ],
        ),
        Section(
            "cards",
            [
                Gallery(
                    [
                        PredictionCard(text, text, 0.5, text, FRAME),
                        PredictionCard(text, text, 0.5, f"{text}!"),
                        PredictionCard(text, text, 1.0),
                    ],
                    caption=text,
                ),
                Command(["videomae", "predict", text], caption=text),
            ],
        ),
    ]


def test_text_from_outside_is_text_everywhere() -> None:
    page = Page(render_report(EVIL, every_block(EVIL), summary=EVIL))
    tags = {tag for tag, _ in page.elements}
    assert "script" not in tags
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert [value for value in page.values("img", "src") if "svg" not in str(value)] == [FRAME, FRAME]
    assert sum(text.count(EVIL) for text in page.texts) >= 17
    charts = [
        value for value in (*page.values("img", "src"), *page.values("source", "srcset")) if "svg" in str(value)
    ]
    assert len(charts) == 4
    for address in charts:
        drawn = ElementTree.fromstring(base64.b64decode(str(address).partition(",")[2]))
        assert not {"script", "image", "a"} & {element.tag.rpartition("}")[2] for element in drawn.iter()}
        assert not [name for element in drawn.iter() for name in element.attrib if name.startswith("on")]


def test_page_is_well_formed_html() -> None:
    page = Page(render_report("title", every_block("some text"), summary="summary"))
    assert page.open == []
    assert "title" in page.texts
    ids = [value for _, attributes in page.elements if (value := attributes.get("id"))]
    assert len(ids) == len(set(ids)) == 4, "one for each section"


def test_page_loads_nothing_and_forbids_itself_to() -> None:
    html = render_report("title", every_block("some text"))
    assert not re.findall(r"https?:|//[a-z]|@import", html)
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in ("link", "script", "iframe", "object", "embed", "form", "base")
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, value)
    assert all(address in ("data:", "#") for address in re.findall(r"url\((data:|#|[^)]{1,8})", html))
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_page_is_for_phones_and_for_the_dark_with_a_chart_for_each() -> None:
    html = render_report("title", [])
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "@media (prefers-color-scheme: dark)" in html
    page = Page(render_report("title", every_block("x")))
    assert page.values("source", "media") == ["(prefers-color-scheme: dark)"] * 2
    dark, light = page.values("source", "srcset"), page.values("img", "src")
    assert not set(dark) & set(light)
    assert LIGHT.ink in html.split("@media")[0]
    assert DARK.ink in html.split("@media")[1]
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", render_report("title", every_block("x"))))
    for scheme in html.split("@media (prefers-color-scheme: dark)")[:2]:
        defined = set(re.findall(r"(--[a-z0-9-]+):", scheme.split("* { box-sizing")[0]))
        assert used <= defined, used - defined


def test_same_input_gives_the_same_page() -> None:
    assert render_report("t", every_block("x")) == render_report("t", every_block("x"))


def test_cards_say_right_and_wrong_in_words_and_colors() -> None:
    cards = [
        PredictionCard("a.mp4", "run", 0.876, "run"),
        PredictionCard("b.mp4", "run", 0.5, "cut"),
        PredictionCard("c.mp4", "run", 1.0),
    ]
    page = Page(render_report("t", [Section("s", [Gallery(cards)])]))
    classes = list(page.values("article", "class"))
    assert classes == ["prediction right", "prediction wrong", "prediction unknown"]
    text = " ".join(" ".join(page.texts).split())
    assert "87.6 %, right" in text
    assert "50.0 %, wrong true: cut" in text
    assert "true: run" not in text
    bars = [value for value in page.values("span", "style") if value]
    assert bars == ["width: 87.6%", "width: 50.0%", "width: 100.0%"]


def test_columns_of_numbers_are_aligned_and_floats_shortened() -> None:
    table = Table(
        ("name", "videos", "accuracy", "rate"), [("7a", 3, "10.0%", 1.23456e-5), ("b", 12, "no videos", 2.0)]
    )
    assert table.numeric == [False, True, True, True]
    page = Page(render_report("t", [Section("s", [table])]))
    assert page.values("td", "class") == [None, "number", "number", "number"] * 2
    assert page.values("th", "class") == [None, "number", "number", "number"]
    assert {"1.235e-05", "2", "no videos"} <= set(page.texts)


def test_table_without_rows_has_its_heading() -> None:
    page = Page(render_report("t", [Section("s", [Table(("a", "b"), [])])]))
    assert {"a", "b"} <= set(page.texts)


def test_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row has 1 cells, the table has 2 columns: \\('x',\\)"):
        Table(("a", "b"), [("x",)])


@pytest.mark.parametrize(
    "address", ["https://example.org/x.png", "data:text/html;base64,AAAA", 'data:image/png;base64,A"onload=x', ""]
)
def test_image_from_elsewhere_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no PNG, JPEG or WebP data: make it with report"):
        Image(address, "alt")
    if address:
        with pytest.raises(ValueError, match="is no PNG, JPEG or WebP data"):
            PredictionCard("a", "b", 0.5, thumbnail=address)


def test_probability_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the probability of 'run' is 87; it must be in \[0, 1\]"):
        PredictionCard("a", "run", 87)


def test_command_is_quoted_for_a_shell() -> None:
    page = Page(render_report("t", [Section("s", [Command(["videomae", "predict", "my video.mp4", "$HOME"])])]))
    assert "videomae predict 'my video.mp4' '$HOME'" in page.texts


def test_versions_name_what_numbers_depend_on() -> None:
    import torch

    import videomae

    facts = dict(versions().rows)
    assert facts["videomae"] == videomae.__version__
    assert facts["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(facts) >= {"python", "numpy", "av", "machine"}


def test_settings_are_flattened_in_order() -> None:
    settings = {"clip": {"num_frames": 16, "kind": "dense"}, "seed": 0, "optim": {"betas": [0.9, 0.95], "extra": {}}}
    assert flat_settings(settings) == {
        "clip.num_frames": 16,
        "clip.kind": "dense",
        "seed": 0,
        "optim.betas": ("0.9", "0.95"),
        "optim.extra": {},
    }
    assert flat_settings({"lr": 0.000123456789}) == {"lr": "0.000123456789"}, "a setting is shown exactly"
    assert shown((0.9, 0.95123456)) == "0.9, 0.9512"
    assert shown(None) == "none"


def test_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    html = render_report("d\u00e9j\u00e0 vu \udcff \x00", [])
    write_report(tmp_path / "report.html", html)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html
    assert "\ufffd" in html
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*folder: Is a directory"):
        write_report(tmp_path / "folder", html)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "report.html"]
