"""Charts and images: what is drawn is what was given."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from videomae.evaluation.metrics import wilson_interval
from videomae.report.figures import (
    Curve,
    Level,
    RunAccuracy,
    SeedAccuracy,
    accuracy_comparison,
    confusion_chart,
    grid_chart,
    loss_curves,
    png_address,
    thumbnail,
)
from videomae.report.svg import DARK, LIGHT, Svg


def lines(svg: Svg, color: str) -> list[np.ndarray]:
    """Return the points `[n, 2]` of every line drawn in a color of the light theme."""
    found = []
    for path, style in re.findall(r'<path d="([^"]+)"[^>]*style="([^"]+)"', svg.light):
        if f"stroke: {color}" in style and "fill: none" in style:
            numbers = [float(one) for one in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)]
            found.append(np.array(numbers).reshape(-1, 2))
    return found


def texts(svg: Svg) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg.light)


def decoded(address: str) -> Image.Image:
    head, data = address.split(",", 1)
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_curve_is_drawn_through_its_points() -> None:
    values = [3.0, 1.0, 2.0, 0.5]
    svg = loss_curves([Curve("loss", [0, 10, 20, 30], values)])
    (points,) = lines(svg, LIGHT.series[0])
    x, y = points.T
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), [0, 1 / 3, 2 / 3, 1], atol=1e-4)
    heights = (y - y[0]) / (y[3] - y[0])  # downwards on the page
    np.testing.assert_allclose(heights, [(3.0 - value) / 2.5 for value in values], atol=1e-4)
    assert svg.alt == "loss by step: loss from 3 to 0.5"


def test_several_curves_have_colors_and_a_legend() -> None:
    svg = loss_curves([Curve("one", [1, 2], [1, 2]), Curve("two", [1, 2], [2, 1])], y_label="error", x_label="epoch")
    assert {"one", "two", "error", "epoch"} <= set(texts(svg))
    assert len(lines(svg, LIGHT.series[1])) == 2, "the curve and its sample in the legend"
    assert "one" not in texts(loss_curves([Curve("one", [1, 2], [1, 2])]))


def test_gaps_and_single_points_are_drawn() -> None:
    svg = loss_curves([Curve("loss", [1, 2, 3, 4, 5], [1.0, 2.0, float("nan"), 2.0, 1.0])])
    assert sum(path.count("M ") for path in re.findall(rf'd="([^"]+)"[^>]*{LIGHT.series[0]}', svg.light)) == 2
    assert "<use" in loss_curves([Curve("loss", [1], [1.0])]).light


def test_curves_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="no curves to draw"):
        loss_curves([])
    with pytest.raises(ValueError, match="curve 'x' has 2 steps and 1 values"):
        loss_curves([Curve("x", [1, 2], [1.0])])


def test_accuracy_lines_are_wilsons_interval_and_the_mean_over_seeds() -> None:
    seeds = (SeedAccuracy(0, 30, 40), SeedAccuracy(1, 36, 40))
    svg = accuracy_comparison([RunAccuracy("pre-trained", seeds)], chance=0.125)
    drawn = lines(svg, LIGHT.series[0])
    intervals = [points[:, 0] for points in drawn if len(points) == 2 and points[0, 1] == points[1, 1]]
    (mean,) = [points[0, 0] for points in drawn if len(points) == 2 and points[0, 0] == points[1, 0]]
    (chance,) = [points[0, 0] for points in lines(svg, LIGHT.muted) if len(points) == 2]
    assert len(intervals) == 2
    expected = [wilson_interval(one.num_correct, one.num_videos) for one in seeds]
    scale = (mean - chance) / (0.825 - 0.125)  # points of the page for an accuracy of 1
    for (left, right), interval in zip(intervals, expected, strict=True):
        assert (left - chance) / scale + 0.125 == pytest.approx(interval.low, abs=1e-4)
        assert (right - chance) / scale + 0.125 == pytest.approx(interval.high, abs=1e-4)
    assert {"82.5%", "pre-trained", "chance"} <= set(texts(svg))
    assert svg.alt == "Top-1 accuracy: pre-trained 82.5% over 2 seeds"


def test_accuracies_without_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="give at least one run, each with at least one seed"):
        accuracy_comparison([RunAccuracy("x", ())])


def test_confusion_counts_stand_in_their_cells() -> None:
    svg = confusion_chart([[7, 2], [0, 9]], ["cut", "run"])
    places = {
        text: (float(x), float(y))
        for x, y, text in re.findall(r'<text [^>]*?x="([\d.]+)" y="([\d.]+)"[^>]*>(\d+)</text>', svg.light)
    }
    assert set(places) == {"7", "2", "9"}, "a zero is left blank"
    assert places["7"][1] == places["2"][1] < places["9"][1]
    assert places["7"][0] < places["2"][0] == places["9"][0]
    assert svg.alt == "Confusion matrix of 2 classes: 16 of 18 right"
    assert texts(svg).count("cut") == texts(svg).count("run") == 2


def test_large_confusion_is_an_image_of_one_pixel_a_class() -> None:
    matrix = np.eye(40, dtype=int) * 3
    matrix[4, 7] = 3
    svg = confusion_chart(matrix.tolist(), [f"class {number}" for number in range(40)])
    (address,) = re.findall(r'href="(data:image/png[^"]+)"', svg.light)
    image = decoded(re.sub(r"\s", "", address))
    assert image.size == (40, 40)
    strength = np.asarray(image.convert("RGBA"))[..., 3] / 255
    if strength[0, 0] == 0:  # SVG images of matplotlib stand on their heads and are turned when drawn
        strength = strength[::-1]
    np.testing.assert_allclose(strength, matrix / matrix.sum(axis=1, keepdims=True), atol=0.005)


def test_class_without_videos_is_drawn_empty() -> None:
    assert "nan" not in confusion_chart([[0, 0], [1, 1]], ["a", "b"]).light.lower()


def test_confusion_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape \[1, 2\]; 2 classes need a square"):
        confusion_chart([[1, 2]], ["a", "b"])


def test_thumbnail_is_reduced_and_never_enlarged() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (100, 400, 3), dtype=np.uint8)
    assert decoded(thumbnail(frame, width=200)).size == (200, 50)
    assert decoded(thumbnail(frame, width=999)).size == (400, 100)
    grey = np.full((20, 30, 3), (10, 120, 250), dtype=np.uint8)
    assert np.abs(np.asarray(decoded(thumbnail(grey))).astype(int) - grey).max() <= 3


def test_png_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decoded(png_address(Image.fromarray(pixels)))), pixels)


def test_levels_are_drawn_across_and_named() -> None:
    svg = loss_curves([Curve("loss", [0, 10], [2.0, 1.0])], levels=[Level("copy-nearest", 1.5)])
    assert "copy-nearest" in texts(svg)
    (line,) = [points for points in lines(svg, LIGHT.muted) if len(points) == 2 and points[0, 1] == points[1, 1]]
    (curve,) = lines(svg, LIGHT.series[0])
    assert line[0, 1] == pytest.approx(curve[:, 1].mean(), abs=0.1)
    assert svg.alt == "loss by step: loss from 2 to 1; copy-nearest 1.5"


def test_a_grid_has_its_numbers_in_its_cells_and_negative_ones_in_the_other_color() -> None:
    svg = grid_chart([[0.5, None], [-0.25, 0.0]], name="share")
    assert [text for text in texts(svg) if "%" in text] == ["50%", "-25%", "0%"]
    assert f"fill: {LIGHT.series[1]}" in svg.light
    assert svg.alt == "share at 2 by 2 positions: -25.0% to 50.0%"


@pytest.mark.parametrize("values", [[], [[]], [[1.0], [1.0, 2.0]]])
def test_a_grid_without_cells_or_with_ragged_rows_is_refused(values: list[list[float | None]]) -> None:
    with pytest.raises(ValueError, match="the grid has no cells, or rows of different lengths: give rows of one"):
        grid_chart(values, name="share")


@pytest.mark.parametrize(
    "svg",
    [
        loss_curves([Curve("a", [0, 1], [1, 2]), Curve("b", [0, 1], [2, 1])], levels=[Level("level", 1.5)]),
        grid_chart([[0.5, -0.5], [None, 1.0]], name="numbers"),
        accuracy_comparison([RunAccuracy("run", (SeedAccuracy(0, 3, 4), SeedAccuracy(1, 2, 4)))], chance=0.5),
        confusion_chart([[7, 2], [0, 9]], ["cut", "run"]),
    ],
    ids=["curves", "grid", "accuracies", "confusion"],
)
def test_a_dark_page_gets_no_color_of_a_light_one(svg: Svg) -> None:
    light = {LIGHT.ink, LIGHT.muted, LIGHT.line, *LIGHT.series}
    used = {color for color in light if color in svg.light}
    assert len(used) >= 3
    assert not [color for color in light if color in svg.dark]
    assert svg.dark.count(DARK.ink) == svg.light.count(LIGHT.ink) > 0
