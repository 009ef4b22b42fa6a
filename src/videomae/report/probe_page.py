"""The page of a probe: what `probe.json` says, drawn."""

from __future__ import annotations

from pathlib import Path

from videomae.evaluation.uncertainty import Interval
from videomae.probing.results import REPORT_FILE, ProbeResult
from videomae.report.figures import Curve, confusion_chart, loss_curves
from videomae.report.page import (
    Block,
    Chart,
    Command,
    Facts,
    Section,
    Table,
    Text,
    render_report,
    versions,
    write_report,
)


def write_probe_page(folder: Path, result: ProbeResult) -> Path:
    """Write the page into a folder; returns its path.

    Raises:
        RunError: If it cannot be written.
    """
    html = render_report("Probe of a frozen encoder", probe_sections(result, folder), summary=result.advice)
    write_report(folder / REPORT_FILE, html)
    return folder / REPORT_FILE


def probe_sections(result: ProbeResult, folder: Path) -> list[Section]:
    """Return the sections of the page: accuracy, labels, calibration, how it was measured."""
    return [
        Section("Accuracy", _accuracy(result)),
        Section("How many labels", _labels(result)),
        Section("Calibration", _calibration(result)),
        Section("How it was measured", _protocol(result, folder)),
    ]


def _accuracy(result: ProbeResult) -> list[Block]:
    rows = [
        (
            probe.name,
            f"{probe.accuracy:.1%}",
            _range(probe.interval),
            "" if probe.minus_linear is None else f"{probe.minus_linear[0]:+.1%}",
            "" if probe.minus_linear is None else _range(probe.minus_linear[1]),
        )
        for probe in result.probes
    ]
    rows.append(("majority class", f"{result.majority:.1%}", "", "", ""))
    blocks: list[Block] = [
        Table(("probe", "accuracy", "95 % interval", "minus linear", "95 % interval of that"), rows),
        Chart(confusion_chart(result.confusion, result.classes), caption="Linear probe, videos of unseen groups."),
    ]
    if not result.has_groups:
        blocks.insert(
            0,
            Text(
                "No groups were given: each video counts as independent of the others. Where several are cut from "
                "one recording, every figure here is too good.",
                is_warning=True,
            ),
        )
    return blocks


def _labels(result: ProbeResult) -> list[Block]:
    numbers = [float(point.num_labels) for point in result.curve]
    measured = Curve("measured", numbers, [point.accuracy for point in result.curve])
    total = sum(result.class_counts)
    ahead = sorted({*numbers, float(total), 2.0 * total})
    fitted = Curve("fitted", ahead, [1 - result.curve_fit.error(number) for number in ahead])
    chart = loss_curves([measured, fitted], x_label="labelled videos", y_label="accuracy")
    rows = [(point.num_labels, f"{point.accuracy:.1%}", _range(point.interval)) for point in result.curve]
    gain = f"{result.gain:+.1%} ({_range(result.gain_interval)})"
    return [
        Chart(chart, caption="Linear probe. The fitted curve is a power law with a limit."),
        Table(("labels", "accuracy", "95 % interval"), rows),
        Text(f"Twice the labels, {2 * total}: {gain} expected of the linear probe."),
    ]


def _calibration(result: ProbeResult) -> list[Block]:
    rows = [
        (f"{one.low:.1f} to {one.high:.1f}", one.num_videos, f"{one.confidence:.1%}", f"{one.accuracy:.1%}")
        for one in result.reliability
        if one.confidence is not None and one.accuracy is not None
    ]
    return [
        Facts({"expected calibration error": f"{result.calibration_error:.1%}"}),
        Table(("confidence", "videos", "mean confidence", "accuracy"), rows, caption="Linear probe, ten equal bins."),
    ]


def _protocol(result: ProbeResult, folder: Path) -> list[Block]:
    counts = dict(zip(result.classes, result.class_counts, strict=True))
    facts: dict[str, object] = {
        "model": result.model,
        "data": result.data,
        "videos": sum(result.class_counts),
        "videos of each class": ", ".join(f"{name} {count}" for name, count in counts.items()),
        "groups": result.num_groups if result.has_groups else "none given",
        "folds": result.folds,
        "clip": f"{result.clip.num_frames} frames, {result.clip.kind}, stride {result.clip.stride}",
        "penalty of the saved probe (C)": result.penalty,
        "features read from disk": result.num_cached,
        **{f"seconds, {name}": value for name, value in result.seconds.items()},
    }
    blocks: list[Block] = [Facts(facts)]
    if result.bad:
        rows = [(one.path, one.reason) for one in result.bad[:20]]
        blocks.append(Table(("video", "why it could not be read"), rows, caption=f"{len(result.bad)} not counted"))
    command = ("videomae", "predict", str(folder / "model"), "VIDEO")
    return [*blocks, Command(command, caption="The linear probe is saved as a classifier:"), versions()]


def _range(interval: Interval) -> str:
    return f"{interval.low:.1%} to {interval.high:.1%}"
