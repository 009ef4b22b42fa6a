"""Sections of a page for results of lower layers: training metrics, evaluations, reconstructions.

Each takes results in memory and returns a `Section`; `evaluation.results.load_evaluation` reads those of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from videomae.errors import VideoReadError
from videomae.evaluation.results import EvaluationResult, VideoResult
from videomae.inference.reconstruction import Reconstruction, reconstruction_strip
from videomae.report.figures import Curve, confusion_chart, loss_curves, png_address, thumbnail
from videomae.report.page import Block, Chart, Facts, Gallery, Image, PredictionCard, Section, Table, Text
from videomae.video.decode import VideoReader

MAX_CURVE_POINTS = 600  # more points than pixels only make the page heavy
MIN_STRIP_PIXELS = 780  # the width of a card on a desktop; narrower, its labels are hard to read
MAX_BAD_VIDEOS = 20  # named on the page; the JSON result names all


def training_section(records: Sequence[Mapping[str, object]], *, title: str = "Training") -> Section:
    """Show the loss and the learning rate of a run.

    Args:
        records: Lines of `metrics.jsonl`; those with `step` and `loss` are drawn.
        title: Heading.

    Raises:
        ValueError: If no record has a loss.
    """
    losses = _points(records, "loss")
    if not losses[0]:
        raise ValueError("no record has a step and a loss: give the lines of a run's metrics.jsonl")
    step = losses[0][-1]
    facts: dict[str, object] = {"steps": int(step), "first loss": losses[1][0], "last loss": losses[1][-1]}
    blocks: list[Block] = [Facts(facts), Chart(loss_curves([Curve("loss", *_thinned(*losses))]))]
    rates = _points(records, "lr")
    if rates[0]:
        blocks.append(Chart(loss_curves([Curve("learning rate", *_thinned(*rates))], y_label="learning rate")))
    return Section(title, blocks)


def evaluation_section(result: EvaluationResult, *, title: str = "Evaluation") -> Section:
    """Show accuracy with its interval, every class, the confusion matrix, and the skipped videos."""
    metrics, views = result.metrics, result.config.views
    interval = f"{metrics.top1_interval.low:.1%} to {metrics.top1_interval.high:.1%}"
    facts: dict[str, object] = {"top-1 accuracy": f"{metrics.top1:.2%}", "95 % interval": interval}
    if metrics.top5 is not None:
        facts["top-5 accuracy"] = f"{metrics.top5:.2%}"
    facts |= {
        "mean over classes": f"{metrics.mean_class:.2%}",
        "videos": metrics.num_videos,
        "views of each video": f"{_counted(views.num_clips, 'clip')} x {_counted(views.num_crops, 'crop')}",
        "frames of a clip": f"{result.clip.num_frames}, {result.clip.kind}, stride {result.clip.stride}",
    }
    blocks: list[Block] = [Facts(facts)]
    if result.bad:
        total = len(result.bad) + len(result.rows)
        blocks.append(
            Text(
                f"{len(result.bad)} of {total} videos could not be read. They count neither as right nor as wrong.",
                is_warning=True,
            )
        )
        shown = result.bad[:MAX_BAD_VIDEOS]
        caption = f"The first {len(shown)} of them" if len(shown) < len(result.bad) else "Skipped"
        blocks.append(Table(("video", "reason"), [(one.path, one.reason) for one in shown], caption))
    blocks.append(
        Chart(
            confusion_chart(metrics.confusion, result.classes),
            "Rows are true classes, columns predicted ones; a cell is as strong as its fraction of the row.",
        )
    )
    rows = [
        (name, sum(row), "no videos" if accuracy is None else f"{accuracy:.1%}")
        for name, row, accuracy in zip(result.classes, metrics.confusion, metrics.per_class, strict=True)
    ]
    blocks.append(Table(("class", "videos", "accuracy"), rows))
    return Section(title, blocks)


def predictions_section(result: EvaluationResult, *, num_cards: int = 12, title: str = "Predictions") -> Section:
    """Show videos with their predictions: the most confident mistakes, then right ones at even distances.

    Args:
        result: An evaluation; its videos are read again, one frame each, from where they were.
        num_cards: Videos to show; at most half of them mistakes, where there are enough right ones.
        title: Heading.
    """
    wrong = sorted(
        (row for row in result.rows if row.prediction != row.label),
        key=lambda row: -row.probabilities[row.prediction],
    )
    right = [row for row in result.rows if row.prediction == row.label]
    num_wrong = min(len(wrong), max(num_cards // 2, num_cards - len(right)))
    num_right = min(len(right), num_cards - num_wrong)
    spread = [right[number * len(right) // num_right] for number in range(num_right)]
    cards = [_card(row, result) for row in [*wrong[:num_wrong], *spread]]
    caption = (
        f"{num_wrong} of {len(wrong)} mistakes, the most confident first, then {num_right} of {len(right)} right "
        "ones, taken at even distances."
    )
    return Section(title, [Gallery(cards, caption)])


def reconstruction_section(
    results: Sequence[tuple[str, Reconstruction]], *, title: str = "Reconstructions"
) -> Section:
    """Show clips with a pre-trained model's predictions of their hidden patches.

    Args:
        results: Name of the model, and the clip.
        title: Heading.
    """
    blocks: list[Block] = []
    if any(result.with_true_statistics is not None for _, result in results):
        blocks.append(
            Text(
                "The model predicts the structure of each hidden patch, but neither its brightness nor its "
                "contrast. The third row takes both from the truth, and so looks good whatever the model has "
                "learnt. The last row gives every hidden patch the same average of the visible ones: whatever "
                "differs between hidden patches there comes from the model. A loss of 1 is that of predicting "
                "nothing."
            )
        )
    for name, result in results:
        image = reconstruction_strip(result, title=name)
        alt = f"Frames of {result.path}: original, input of the encoder, and the prediction"
        blocks.append(Image(png_address(image), alt, min_pixels=min(image.width, MIN_STRIP_PIXELS)))
    return Section(title, blocks)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _points(records: Sequence[Mapping[str, object]], name: str) -> tuple[list[float], list[float]]:
    chosen = [
        (float(step), float(value))
        for record in records
        if isinstance(step := record.get("step"), int | float) and isinstance(value := record.get(name), int | float)
    ]
    return [step for step, _ in chosen], [value for _, value in chosen]


def _thinned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Take the mean of every few neighbours, so that a long run stays a light drawing."""
    size = -(-len(steps) // MAX_CURVE_POINTS)  # rounded up
    starts = range(0, len(steps), size)
    return (
        [steps[min(start + size, len(steps)) - 1] for start in starts],
        [sum(group) / len(group) for start in starts if (group := values[start : start + size])],
    )


def _card(row: VideoResult, result: EvaluationResult) -> PredictionCard:
    try:
        with VideoReader(Path(result.root) / row.path) as reader:
            image = thumbnail(reader.frames([len(reader) // 2])[0])
    except VideoReadError:
        image = None  # gone since the evaluation; the numbers still hold
    return PredictionCard(
        name=row.path,
        predicted=result.classes[row.prediction],
        probability=min(row.probabilities[row.prediction], 1.0),
        true_label=result.classes[row.label],
        thumbnail=image,
    )
