"""Charts of results, and images as data addresses: numbers in, `Svg` or `data:` text out."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image

from videomae.evaluation.uncertainty import Bin, wilson_interval
from videomae.report.svg import CHART_INCHES, Svg, Theme, draw_chart, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED_CLASSES = 24  # more names than this do not fit beside a confusion matrix
MAX_COUNTED_CLASSES = 12  # nor numbers into its cells
LINES = ("solid", "dashed", "dotted", "dashdot")  # the next for curves that have a color again
FULL_CELL_OPACITY = 0.65  # of a cell that holds all videos of its class: numbers in it stay readable
DENSE_CELL_RGB = (0.16, 0.47, 0.85)  # of many small cells: a blue that stands out from light and dark pages


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    """For the legend."""
    steps: Sequence[float]
    """Positions along x, ascending."""
    values: Sequence[float]
    """Heights, as many as steps."""
    place: int | None = field(default=None, kw_only=True)
    """Which color and kind of line it has; None: that of its place among the curves."""


@dataclass(frozen=True)
class SeedAccuracy:
    """The accuracy that one training seed reached on the test videos."""

    seed: int
    """The seed."""
    num_correct: int
    """Videos classified correctly."""
    num_videos: int
    """Videos in all."""


@dataclass(frozen=True)
class RunAccuracy:
    """The accuracies of one way of training, one for each seed."""

    name: str
    """For the axis."""
    seeds: tuple[SeedAccuracy, ...]
    """At least one."""


@dataclass(frozen=True)
class Level:
    """A height to compare curves with."""

    name: str
    """Written on its line."""
    value: float
    """Where it is drawn."""


def loss_curves(
    curves: Sequence[Curve], *, levels: Sequence[Level] = (), x_label: str = "step", y_label: str = "loss"
) -> Svg:
    """Draw one or several curves over the same axes.

    Args:
        curves: At least one, each of at least one point; values that are not finite leave gaps.
        levels: Drawn as broken lines across.
        x_label: What x counts.
        y_label: What y measures.

    Raises:
        ValueError: If there is no curve, or steps and values of one differ in number.
    """
    if not curves:
        raise ValueError("there are no curves to draw: give at least one")
    for curve in curves:
        if len(curve.steps) != len(curve.values) or not curve.steps:
            raise ValueError(
                f"curve {curve.name!r} has {len(curve.steps)} steps and {len(curve.values)} values; "
                "give as many of each, at least one"
            )

    def draw(axes: Axes, theme: Theme) -> None:
        for number, curve in enumerate(curves):
            marker = "o" if len(curve.steps) == 1 else None
            look = number if curve.place is None else curve.place
            axes.plot(
                curve.steps,
                curve.values,
                color=theme.series[look % len(theme.series)],
                linestyle=LINES[look // len(theme.series) % len(LINES)],
                linewidth=1.8,
                marker=marker,
                label=printable(curve.name),
            )
        for level in levels:
            axes.axhline(level.value, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
            place = axes.get_yaxis_transform()  # x as a fraction of the axes, y as data
            name = printable(level.name)
            axes.annotate(
                name, (1.0, level.value), (0, 3), place, textcoords="offset points", color=theme.muted, ha="right"
            )
        axes.grid(visible=True, linewidth=0.6)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if len(curves) > 1:
            axes.legend()

    ends = "; ".join(f"{curve.name} from {curve.values[0]:.4g} to {curve.values[-1]:.4g}" for curve in curves)
    beside = "".join(f"; {level.name} {level.value:.4g}" for level in levels)
    return draw_chart(draw, alt=f"{y_label} by {x_label}: {ends}{beside}")


def grid_chart(values: Sequence[Sequence[float | None]], *, name: str) -> Svg:
    """Draw a number for each position of the token grid as the strength of its cell; below 0 in the other color.

    Args:
        values: `[h, w]`; None leaves the cell empty.
        name: What the numbers are.

    Raises:
        ValueError: If there is none, or rows differ in length.
    """
    if not values or len({len(row) for row in values}) != 1 or not values[0]:
        raise ValueError("the grid has no cells, or rows of different lengths: give rows of one length")
    known = [value for row in values for value in row if value is not None]
    largest = max((abs(value) for value in known), default=0.0) or 1.0

    def draw(axes: Axes, theme: Theme) -> None:
        for row, cells in enumerate(values):
            for column, value in enumerate(cells):
                color = theme.series[0 if (value or 0.0) >= 0 else 1]
                strength = FULL_CELL_OPACITY * abs(value or 0.0) / largest
                corner = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, alpha=strength, edgecolor="none"))
                axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=theme.line, linewidth=0.6))
                if value is not None and len(cells) <= MAX_COUNTED_CLASSES:
                    axes.text(column, row, f"{value:.0%}", ha="center", va="center")
        axes.set_xlim(-0.5, len(values[0]) - 0.5)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])

    ends = f"{min(known):.1%} to {max(known):.1%}" if known else "nothing"
    return draw_chart(draw, alt=f"{name} at {len(values)} by {len(values[0])} positions: {ends}", inches=(4.2, 4.2))


def accuracy_comparison(runs: Sequence[RunAccuracy], *, chance: float | None = None) -> Svg:
    """Draw the top-1 accuracy of several ways of training: each seed with its interval, and the mean over seeds.

    Args:
        runs: At least one. A seed's bar is Wilson's 95 % interval, the spread due to the videos that were tested; the
            distance between the seeds of a run is the spread due to training.
        chance: Accuracy of guessing, drawn as a line.

    Raises:
        ValueError: If there is no run, or one has no seed.
    """
    if not runs or not all(run.seeds for run in runs):
        raise ValueError("there are no accuracies to draw: give at least one run, each with at least one seed")

    def draw(axes: Axes, theme: Theme) -> None:
        for row, run in enumerate(runs):
            color = theme.series[row % len(theme.series)]
            accuracies = [one.num_correct / one.num_videos for one in run.seeds]
            heights = row + _spread(len(accuracies))
            for height, accuracy, one in zip(heights, accuracies, run.seeds, strict=True):
                interval = wilson_interval(one.num_correct, one.num_videos)
                axes.plot([interval.low, interval.high], [height, height], color=color, linewidth=1.2, alpha=0.55)
                axes.plot([accuracy], [height], color=color, marker="o", markersize=5, linestyle="none")
            mean = sum(accuracies) / len(accuracies)
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color=color, linewidth=2.2)
            axes.annotate(f"{mean:.1%}", (mean, row - 0.33), color=theme.ink, ha="center", va="bottom")
        if chance is not None:
            axes.axvline(chance, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
            point = (chance, len(runs) - 0.48)
            axes.annotate("chance", point, (4, 0), textcoords="offset points", color=theme.muted, va="center")
        axes.set_yticks(range(len(runs)), [_shortened(run.name) for run in runs])
        axes.set_ylim(len(runs) - 0.35, -0.75)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.grid(visible=True, axis="x", linewidth=0.6)
        axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
        axes.set_xlabel("top-1 accuracy")

    text = "; ".join(
        f"{run.name} {sum(one.num_correct / one.num_videos for one in run.seeds) / len(run.seeds):.1%} "
        f"over {len(run.seeds)} seed{'s' if len(run.seeds) > 1 else ''}"
        for run in runs
    )
    width, height = CHART_INCHES
    return draw_chart(draw, alt=f"Top-1 accuracy: {text}", inches=(width, max(1.1 + 0.75 * len(runs), height / 2)))


def confusion_chart(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Svg:
    """Draw a confusion matrix; a cell's strength is its fraction of the videos of its true class.

    Args:
        confusion: `[K, K]` counts of videos, row = true class, column = predicted class.
        classes: K names.

    Raises:
        ValueError: If the shapes do not fit.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    if counts.shape != (len(classes), len(classes)) or not len(classes):
        raise ValueError(f"the confusion matrix has shape {list(counts.shape)}; {len(classes)} classes need a square")
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: Axes, theme: Theme) -> None:
        if len(classes) <= MAX_COUNTED_CLASSES:
            _draw_cells(axes, counts, fractions, theme)
        else:  # thousands of rectangles would make a heavy page: one small transparent image instead
            colors = np.empty((*fractions.shape, 4))
            colors[..., :3], colors[..., 3] = DENSE_CELL_RGB, fractions
            axes.imshow(colors, interpolation="none", aspect="auto")
        named = len(classes) <= MAX_NAMED_CLASSES
        ticks = range(len(classes)) if named else range(0, len(classes), max(len(classes) // 10, 1))
        names = [_shortened(classes[tick]) if named else str(tick) for tick in ticks]
        if named:
            axes.set_xticks(list(ticks), names, rotation=45, ha="right", rotation_mode="anchor")
        else:
            axes.set_xticks(list(ticks), names)
        axes.set_yticks(list(ticks), names)
        axes.tick_params(length=0, labelcolor=theme.ink)
        axes.set_xlabel("predicted" if named else "id of the predicted class")
        axes.set_ylabel("true" if named else "id of the true class")

    right, total = int(np.trace(counts)), int(counts.sum())
    return draw_chart(
        draw, alt=f"Confusion matrix of {len(classes)} classes: {right} of {total} right", inches=(5.6, 5.2)
    )


def reliability_chart(bins: Sequence[Bin]) -> Svg:
    """Draw the accuracy by the confidence of predictions, beside the diagonal of perfect calibration.

    Args:
        bins: From `evaluation.uncertainty.reliability`; those without predictions are left out. A point is as large
            as its part of the predictions.
    """
    filled = [
        (one.confidence, one.accuracy, one.num_videos)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]
    total = sum(count for _, _, count in filled) or 1

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        x, y = [one[0] for one in filled], [one[1] for one in filled]
        axes.plot(x, y, color=theme.series[0], linewidth=1.2)
        axes.scatter(x, y, s=[20 + 300 * one[2] / total for one in filled], color=theme.series[0], alpha=0.8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("mean confidence")
        axes.set_ylabel("accuracy")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))

    told = ", ".join(f"{right:.0%} right of {count} at {mean:.0%}" for mean, right, count in filled)
    return draw_chart(draw, alt=f"Accuracy by confidence: {told or 'nothing'}", inches=(4.2, 4.2))


def thumbnail(frame: NDArray[np.uint8], *, width: int = 320) -> str:
    """Return a frame as a small JPEG in a data address.

    Args:
        frame: `[H, W, 3]` uint8 RGB.
        width: Most pixels across; a smaller frame keeps its size.
    """
    image = Image.fromarray(frame)
    if image.width > width:
        image = image.resize((width, max(round(image.height * width / image.width), 1)), Image.Resampling.LANCZOS)
    return _data_address(image, "JPEG", quality=85)


def png_address(image: Image.Image) -> str:
    """Return an image as a PNG in a data address, pixel for pixel."""
    return _data_address(image, "PNG", optimize=True)


def _data_address(image: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _spread(count: int) -> NDArray[np.float64]:
    """Return heights around 0 for the points of one row."""
    return (np.arange(count, dtype=np.float64) - (count - 1) / 2) * min(0.16, 0.6 / count)


def _shortened(name: str, limit: int = 18) -> str:
    name = printable(name)
    return name if len(name) <= limit else name[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _draw_cells(axes: Axes, counts: NDArray[np.int64], fractions: NDArray[np.float64], theme: Theme) -> None:
    num_classes = len(counts)
    for row in range(num_classes):
        for column in range(num_classes):
            strength = FULL_CELL_OPACITY * float(fractions[row, column])
            color = theme.series[0 if row == column else 1]
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, alpha=strength, edgecolor="none"))
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=theme.line, linewidth=0.6))
            if counts[row, column]:
                axes.text(column, row, str(counts[row, column]), ha="center", va="center")
    axes.set_xlim(-0.5, num_classes - 0.5)
    axes.set_ylim(num_classes - 0.5, -0.5)
