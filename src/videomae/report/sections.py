"""Sections of a page for results of lower layers: training metrics, evaluations, reconstructions.

Each takes results in memory and returns a `Section`; `evaluation.results.load_evaluation` reads those of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from videomae.data.remote_folder import joined
from videomae.engine.progress import flops_text
from videomae.errors import VideoReadError
from videomae.evaluation.results import EvaluationResult, VideoResult
from videomae.inference.reconstruction import Reconstruction, reconstruction_strip
from videomae.monitor.history import NAMES, History, read_history, standing
from videomae.report.figures import (
    Curve,
    Level,
    confusion_chart,
    grid_chart,
    loss_curves,
    png_address,
    thumbnail,
)
from videomae.report.page import Block, Chart, Facts, Gallery, Image, PredictionCard, Section, Table, Text
from videomae.video.addresses import video_path
from videomae.video.opening import open_reader
from videomae.wording import counted

MAX_CURVE_POINTS = 600  # more points than pixels only make the page heavy
MIN_STRIP_PIXELS = 780  # the width of a card on a desktop; narrower, its labels are hard to read
SHOWN_GROUPS = ("embeddings", "early", "late", "decoder")  # of gradient norms: a chart has four colors
MAX_BAD_VIDEOS = 20  # named on the page; the JSON result names all


def training_section(records: Sequence[Mapping[str, object]], *, title: str = "Training") -> Section:
    """Show the loss and the learning rate of a run.

    Args:
        records: Lines of `metrics.jsonl`; those with `step` and `loss` are drawn.
        title: Heading.

    Raises:
        ValueError: If no record has a loss.
    """
    losses = points(records, "loss")
    if not losses[0]:
        raise ValueError("no record has a step and a loss: give the lines of a run's metrics.jsonl")
    step = losses[0][-1]
    facts: dict[str, object] = {"steps": int(step), "first loss": losses[1][0], "last loss": losses[1][-1]}
    facts |= _speed_facts(records)
    blocks: list[Block] = [Facts(facts), Chart(loss_curves([Curve("loss", *thinned(*losses))]))]
    rates = points(records, "lr")
    if rates[0]:
        blocks.append(Chart(loss_curves([Curve("learning rate", *thinned(*rates))], y_label="learning rate")))
    speeds = points(records, "clips_per_second")
    if len(speeds[0]) > 1:
        curve = Curve("clips/s", *thinned(*speeds))
        blocks.append(Chart(loss_curves([curve], y_label="clips/s"), "Of a minute each, noted once a minute."))
    return Section(title, blocks)


def _speed_facts(records: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return the last speed that was noted; nothing of a run of less than a minute."""
    clips, flops, fraction = (
        points(records, name)[1] for name in ("clips_per_second", "flops_per_second", "peak_fraction")
    )
    facts: dict[str, object] = {}
    if clips:
        facts["clips/s"] = clips[-1]
    if flops:
        peak = flops[-1] / fraction[-1] if fraction and fraction[-1] else None
        measured = "" if peak is None else f" (matrix multiplications reach {flops_text(peak, None)})"
        facts["operations"] = f"{flops_text(flops[-1], peak)}{measured}"
    return facts


def monitor_section(records: Sequence[Mapping[str, object]], *, title: str = "Is it learning?") -> Section:
    """Show what the monitor of a pre-training run has measured, and its alarms.

    Args:
        records: Lines of `monitor.jsonl`.
        title: Heading.

    Raises:
        ValueError: If there is no measurement.
    """
    history = read_history(records)
    if history is None:
        raise ValueError("no record is a measurement: give the lines of a run's monitor.jsonl")
    start, last = history.beginning, history.last
    blocks: list[Block] = [Text(f"{standing(history)}.")]
    for alarm in {alarm["name"]: alarm for one in history.measurements for alarm in one.alarms}.values():
        steps = [one.step for one in history.measurements if alarm["name"] in {two["name"] for two in one.alarms}]
        when = f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
        text = (
            f"{alarm['name']} ({when}): {alarm['evidence']}. Likely cause: {alarm['cause']}. Try: {alarm['remedy']}."
        )
        blocks.append(Text(text, is_warning=True))
    blocks.append(Facts(_monitor_facts(history)))
    measured = "held-out clips" if start.unseen else "measured clips"
    measurements = [(float(one.step), one.held_out_loss) for one in history.measurements]
    trained = [(float(one.step), one.train_loss) for one in history.measurements if one.train_loss is not None]
    curves = [
        Curve(name, *zip(*rows, strict=True))
        for name, rows in ((measured, measurements), ("training", trained))
        if rows
    ]
    baselines = {NAMES[name]: value for name, value in start.baselines.items() if name != "visible_mean"}
    # The lowest of them is always drawn: being below it is what the picture is for.
    top = max(1.1 * max(value for curve in curves for value in curve.values), min(baselines.values()))
    levels = [Level(name, value) for name, value in baselines.items() if value <= top]
    caption = "Broken lines: predictions that need no learning; see docs/monitor.md."
    blocks.append(Chart(loss_curves(curves, levels=levels), caption))
    blocks.append(
        Chart(
            grid_chart(last.explained["position"], name="share of the variance explained"),
            f"Share of the variance of hidden patches that is explained, by position, after step {last.step:,}.",
        )
    )
    by_time = [value for value in last.explained["time"] if value is not None]
    if len(by_time) > 1:
        curve = Curve("explained", list(range(len(by_time))), by_time)
        blocks.append(Chart(loss_curves([curve], x_label="time slice", y_label="share of the variance explained")))
    blocks += _group_charts(history)
    return Section(title, blocks)


def _monitor_facts(history: History) -> dict[str, object]:
    start, last = history.beginning, history.last
    facts: dict[str, object] = {
        "clips": f"{start.num_clips}, {'held out' if start.unseen else 'trained on too'}",
        **{f"loss of {NAMES[name]}": value for name, value in start.baselines.items()},
        "loss": last.held_out_loss,
        "effective rank of the features": f"{last.effective_rank:.1f} of {last.width}",
    }
    if last.attention_distance:
        facts["attention distance by layer, tokens"] = [round(one, 2) for one in last.attention_distance]
    for name, value in (
        ("nearest-neighbor accuracy", last.neighbour_accuracy),
        ("linear probe accuracy", last.probe_accuracy),
        ("attentive probe accuracy", last.attentive_accuracy),
        ("majority class", last.majority),
    ):
        if value is not None:
            facts[name] = f"{value:.1%}"
    return facts


def _group_charts(history: History) -> list[Block]:
    ranks = [(float(one.step), one.effective_rank) for one in history.measurements]
    rank = Curve("rank", *zip(*ranks, strict=True))
    blocks: list[Block] = [Chart(loss_curves([rank], y_label="effective rank of the features"))]
    curves = []
    for name in SHOWN_GROUPS:
        rows = [
            (float(one.step), one.gradient_norms[name]) for one in history.measurements if name in one.gradient_norms
        ]
        if rows:
            curves.append(Curve(name, *zip(*rows, strict=True)))
    if curves:
        caption = "The encoder's first and last third, its embeddings, and the decoder; monitor.jsonl has the middle."
        blocks.append(Chart(loss_curves(curves, y_label="gradient norm"), caption))
    return blocks


def evaluation_section(result: EvaluationResult, *, title: str = "Evaluation") -> Section:
    """Show accuracy with its interval, every class, the confusion matrix, and the skipped videos."""
    metrics, views = result.choice, result.config.views
    interval = f"{metrics.top1_interval.low:.1%} to {metrics.top1_interval.high:.1%}"
    facts: dict[str, object] = {"top-1 accuracy": f"{metrics.top1:.2%}", "95 % interval": interval}
    if metrics.top5 is not None:
        facts["top-5 accuracy"] = f"{metrics.top5:.2%}"
    facts |= {
        "mean over classes": f"{metrics.mean_class:.2%}",
        "videos": metrics.num_videos,
        "views of each video": f"{counted(views.num_clips, 'clip')} x {counted(views.num_crops, 'crop')}",
        "frames of a clip": f"{result.clip.num_frames}, {result.clip.kind}, stride {result.clip.stride}",
    }
    blocks: list[Block] = [Facts(facts)]
    if result.bad:
        total = len(result.bad) + len(result.rows)
        blocks.append(
            Text(
                f"{len(result.bad)} of {total} videos could not be read. "
                "Such videos count neither as right nor as wrong.",
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
                "learnt. The last row averages both over the visible patches around: what is finer than that comes "
                "from the model. A loss of 1 is that of predicting nothing."
            )
        )
    for name, result in results:
        image = reconstruction_strip(result, title=name)
        alt = f"Frames of {result.path}: original, input of the encoder, and the prediction"
        blocks.append(Image(png_address(image), alt, min_pixels=min(image.width, MIN_STRIP_PIXELS)))
    return Section(title, blocks)


def points(records: Sequence[Mapping[str, object]], name: str) -> tuple[list[float], list[float]]:
    """Return the steps of the records that have a number of this name, and the numbers."""
    chosen = [
        (float(step), float(value))
        for record in records
        if isinstance(step := record.get("step"), int | float) and isinstance(value := record.get(name), int | float)
    ]
    return [step for step, _ in chosen], [value for _, value in chosen]


def thinned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Take the mean of every few neighbours, so that a long run stays a light drawing."""
    size = -(-len(steps) // MAX_CURVE_POINTS)  # rounded up
    starts = range(0, len(steps), size)
    return (
        [steps[min(start + size, len(steps)) - 1] for start in starts],
        [sum(group) / len(group) for start in starts if (group := values[start : start + size])],
    )


def _card(row: VideoResult, result: EvaluationResult) -> PredictionCard:
    try:
        with open_reader(joined(video_path(result.root), row.path)) as reader:
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
