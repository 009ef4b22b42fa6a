"""The page of an evaluation, and the files beside it: what is right, what is confused with what, how sure it is."""

from __future__ import annotations

import os
from pathlib import Path

from videomae.atomic import write_text_atomic
from videomae.data.datasets import BadVideo
from videomae.errors import ConfigError, RunError
from videomae.evaluation.label_metrics import LabelMetrics
from videomae.evaluation.metrics import Metrics
from videomae.evaluation.results import EVALUATION_FILE, EvaluationResult, VideoResult
from videomae.evaluation.tables import CLASSES_FILE, VIDEOS_FILE, classes_csv, videos_csv
from videomae.evaluation.uncertainty import Bin
from videomae.report.figures import confusion_chart, reliability_chart
from videomae.report.page import (
    Block,
    Chart,
    Command,
    Facts,
    Gallery,
    Image,
    PredictionCard,
    Section,
    Table,
    Text,
    render_report,
    versions,
    write_report,
)
from videomae.report.sections import evaluation_section
from videomae.report.thumbnails import moving_thumbnail
from videomae.wording import counted

REPORT_FILE = "report.html"
MAX_CARDS = 24
MAX_PAIRS = 20
MAX_BAD_VIDEOS = 20  # named on the page; evaluation.json names all
MAX_THUMBNAIL_BYTES = 2_500_000  # of all on the page, so that it can be sent by mail


def check_report_folder(folder: Path) -> None:
    """Check that a report can be written, before anything is computed for it.

    Raises:
        ConfigError: If the folder is a file, or neither it nor a folder that it could be made in is there.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"report {folder} is a file: give a folder for report.html and the files next to it")
    place = folder if folder.exists() else folder.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(f"report {folder} cannot be made: {place} is no folder that can be written to")


def write_evaluation_page(folder: Path, result: EvaluationResult, *, model: str) -> Path:
    """Write the page, the result and its tables into a folder, which is made; returns the page's path.

    Args:
        folder: What is there of an earlier report is replaced.
        result: The evaluation; the videos shown are read again from where they were.
        model: What was evaluated, for people.

    Raises:
        RunError: If a file cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        write_text_atomic(folder / CLASSES_FILE, classes_csv(result))
        write_text_atomic(folder / VIDEOS_FILE, videos_csv(result))
    except OSError as error:
        raise RunError(f"cannot write into {folder}: {error.strerror or error}") from None
    result.save(folder / EVALUATION_FILE)
    html = render_report(
        "Evaluation", evaluation_sections(result, model=model), summary=". ".join(result.metrics.lines()[:2]) + "."
    )
    write_report(folder / REPORT_FILE, html)
    return folder / REPORT_FILE


def evaluation_sections(result: EvaluationResult, *, model: str) -> list[Section]:
    """Return the sections of the page."""
    sections = [Section("Figures", _figures(result)), Section("Each output", [_table(result)])]
    metrics = result.metrics
    if isinstance(metrics, Metrics):
        sections.append(Section("What is confused with what", _confusion(result, metrics)))
    sections.append(Section("Largest mistakes", _mistakes(result)))
    if isinstance(metrics, Metrics | LabelMetrics):
        sections.append(Section("Calibration", _calibration(metrics.calibration_error, metrics.reliability)))
    return [*sections, Section("How it was measured", _protocol(result, model))]


def outcome_section(result: EvaluationResult, *, title: str) -> Section:
    """Return one section about an evaluation, of whatever outputs, for a page about something larger."""
    if isinstance(result.metrics, Metrics):
        return evaluation_section(result, title=title)
    return Section(title, [*_figures(result), _table(result)])


def _figures(result: EvaluationResult) -> list[Block]:
    blocks: list[Block] = [Text(line) for line in result.figures()]
    if result.metrics.num_groups is None:
        blocks.append(
            Text(
                "The data say nothing of groups: each video counts as independent of the others. Where several are "
                "cut from one recording, the intervals are too narrow.",
                is_warning=True,
            )
        )
    if result.bad:
        blocks += _not_counted(result.bad, len(result.rows) + len(result.bad))
    return blocks


def _not_counted(bad: tuple[BadVideo, ...], total: int) -> list[Block]:
    text = f"{len(bad)} of {total} videos could not be read. Such videos count neither as right nor as wrong."
    rows = [(one.path, one.reason) for one in bad[:MAX_BAD_VIDEOS]]
    return [Text(text, is_warning=True), Table(("video", "reason"), rows)]


def _table(result: EvaluationResult) -> Table:
    columns, rows = result.metrics.table(result.classes)
    fractions = {"accuracy", "precision", "recall", "average precision"}
    shown = [
        tuple(
            "" if cell is None else f"{cell:.1%}" if column in fractions else cell
            for column, cell in zip(columns, row, strict=True)
        )
        for row in rows
    ]
    return Table(columns, shown)


def _confusion(result: EvaluationResult, metrics: Metrics) -> list[Block]:
    pairs = [
        (count, result.classes[true], result.classes[predicted], f"{count / sum(row):.1%}")
        for true, row in enumerate(metrics.confusion)
        for predicted, count in enumerate(row)
        if count and predicted != true
    ]
    pairs.sort(key=lambda pair: -pair[0])
    chart = Chart(
        confusion_chart(metrics.confusion, result.classes),
        "Rows are true classes, columns predicted ones; a cell is as strong as its fraction of the row.",
    )
    if not pairs:
        return [chart, Text("Nothing is confused.")]
    caption = f"The {min(len(pairs), MAX_PAIRS)} most frequent of {len(pairs)} confusions"
    columns = ("videos", "true", "predicted", "of the true class")
    return [chart, Table(columns, pairs[:MAX_PAIRS], caption)]


def _mistakes(result: EvaluationResult) -> list[Block]:
    """Show the videos with the largest mistakes, moving, the worst first."""
    if result.problem == "regression":
        return _far_values(result)
    wrong = sorted(filter(None, (_mistake(row, result) for row in result.rows)), key=lambda one: -one[0])
    cards, left = [], MAX_THUMBNAIL_BYTES
    for _, row, card in wrong[:MAX_CARDS]:
        picture = moving_thumbnail(Path(result.root) / row.path, result.clip)
        if picture is not None and len(picture) <= left:
            left -= len(picture)
            card = PredictionCard(card.name, card.predicted, card.probability, card.true_label, picture)
        cards.append(card)
    if not cards:
        return [Text("There is no mistake.")]
    return [Gallery(cards, f"{len(cards)} of {len(wrong)} videos with a mistake, the most confident first")]


def _mistake(row: VideoResult, result: EvaluationResult) -> tuple[float, VideoResult, PredictionCard] | None:
    """Return how confident the worst mistake on a video is, and a card that tells it; None without a mistake."""
    names = result.classes
    if not row.targets:
        if row.prediction == row.label:
            return None
        score = min(row.probabilities[row.prediction], 1.0)
        return score, row, PredictionCard(row.path, names[row.prediction], score, names[row.label])
    worst = None
    for name, score, target, level in zip(names, row.probabilities, row.targets, result.thresholds, strict=True):
        if (score >= level) == (target > 0.5):
            continue
        size = abs(score - target)
        if worst is None or size > worst[0]:
            truth = f"{name}, missed" if target > 0.5 else f"no {name}"
            worst = size, row, PredictionCard(row.path, name, min(score, 1.0), truth)
    return worst


def _far_values(result: EvaluationResult) -> list[Block]:
    scale = [max(abs(row.targets[number]) for row in result.rows) or 1.0 for number in range(len(result.classes))]

    def size(row: VideoResult) -> float:
        triples = zip(row.probabilities, row.targets, scale, strict=True)
        return max(abs(found - true) / largest for found, true, largest in triples)

    blocks: list[Block] = []
    for row in sorted(result.rows, key=size, reverse=True)[:MAX_CARDS]:
        told = "; ".join(
            f"{name} {found:.4g}, true {true:.4g}"
            for name, found, true in zip(result.classes, row.probabilities, row.targets, strict=True)
        )
        picture = moving_thumbnail(Path(result.root) / row.path, result.clip)
        if picture is None:
            blocks.append(Text(f"{row.path}: {told}"))
        else:
            blocks.append(Image(picture, f"Frames of {row.path}", f"{row.path}: {told}"))
    return blocks


def _calibration(error: float, bins: tuple[Bin, ...]) -> list[Block]:
    rows = [
        (f"{one.low:.1f} to {one.high:.1f}", one.num_videos, f"{one.confidence:.1%}", f"{one.accuracy:.1%}")
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]
    return [
        Facts({"expected calibration error": f"{error:.1%}"}),
        Chart(reliability_chart(bins), "On the diagonal a score is as often right as it says; below it, less often."),
        Table(("confidence", "number", "mean confidence", "accuracy"), rows, "Ten equal bins"),
    ]


def _protocol(result: EvaluationResult, model: str) -> list[Block]:
    clip, views = result.clip, result.config.views
    facts: dict[str, object] = {
        "model": model,
        "data": result.root,
        "outputs": result.problem.replace("_", " "),
        "videos": len(result.rows),
        "groups": "none given" if result.metrics.num_groups is None else result.metrics.num_groups,
        "views of each video": f"{counted(views.num_clips, 'clip')} x {counted(views.num_crops, 'crop')}",
        "clip": f"{clip.num_frames} frames, {clip.kind}, stride {clip.stride}",
        "precision": result.config.precision,
    }
    command = ("videomae", "predict", model, "VIDEO")
    return [Facts(facts), Command(command, "The same model on another video:"), versions()]
