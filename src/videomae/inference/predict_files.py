"""Classes of many files: printed as tables, or as JSON."""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from videomae.data.datasets import BadVideo
from videomae.errors import VideoReadError
from videomae.inference.files import collection_store, list_inputs
from videomae.inference.predictor import Prediction, Predictor
from videomae.video.index_store import IndexStore

BAR_COLUMNS = 24  # width of the bar of probability 1 in the table
SOME_FAILED = 2  # exit status


def predict_files(
    predictor: Predictor,
    videos: Sequence[str | os.PathLike[str]],
    *,
    top_k: int = 5,
    num_views: int = 1,
    json: bool = False,
) -> int:
    """Classify files and folders of files, and print the predictions on standard output.

    A file that cannot be read does not stop the others: it is reported on standard error.

    Args:
        predictor: The classifier.
        videos: Files, folders of them of any depth, manifests, addresses.
        top_k: Classes to print for each video.
        num_views: Clips to average over.
        json: Print one JSON object, `{"model", "predictions", "errors"}`, instead of tables.

    Returns:
        Exit status: 0, or 2 if a file could not be read.
    """
    predictions: list[Prediction] = []
    errors: list[BadVideo] = []
    console = Console(highlight=False, emoji=False)
    store = collection_store(videos)
    for item in list_inputs(videos):
        prediction = item if isinstance(item, BadVideo) else _predict_file(predictor, item, top_k, num_views, store)
        if isinstance(prediction, BadVideo):
            errors.append(prediction)
            print(f"error: {prediction.reason}", file=sys.stderr)
            continue
        predictions.append(prediction)
        if not json:
            print_prediction(prediction, console)
    if json:
        values = {
            "model": predictor.source,
            "predictions": [one.to_dict() for one in predictions],
            "errors": [{"path": one.path, "error": one.reason} for one in errors],
        }
        print(json_format.dumps(values, indent=2, allow_nan=False))
    return SOME_FAILED if errors else 0


def print_prediction(prediction: Prediction, console: Console) -> None:
    """Print a prediction: the file, a row for each class, and which frames were sampled.

    Values of a regression are printed as they are; where labels have thresholds, those that are present are marked.
    """
    # A file name may hold bytes that are no text; no terminal takes the surrogates that Python puts for them.
    name = (prediction.path or "frames").encode("utf-8", "replace").decode("utf-8")
    console.print(Text(name), soft_wrap=True)  # never broken, so that it can be searched for and copied
    table = Table(box=None, show_header=False)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    line = "-" if console.options.ascii_only else "\N{BOX DRAWINGS HEAVY HORIZONTAL}"
    present = prediction.present or (False,) * len(prediction.labels)
    for label, score, is_present in zip(prediction.labels, prediction.probabilities, present, strict=True):
        text = Text(f"{label} (present)" if is_present else label)
        if prediction.activation == "none":
            table.add_row(f"{score:.4g}", Text(""), text)
        else:
            table.add_row(f"{score:.1%}", Text((line * round(score * BAR_COLUMNS)).ljust(BAR_COLUMNS), "cyan"), text)
    console.print(table)
    indices = [index for view in prediction.frame_indices for index in view]
    sampled = f"frames {min(indices)} to {max(indices)}"
    if prediction.frame_seconds is not None:
        seconds = [second for view in prediction.frame_seconds for second in view]
        sampled += f", {min(seconds):.2f} s to {max(seconds):.2f} s"
    if len(prediction.frame_indices) > 1:
        sampled += f", {len(prediction.frame_indices)} views"
    console.print(Text(sampled, style="dim"), soft_wrap=True)


def _predict_file(
    predictor: Predictor, path: Path | str, top_k: int, num_views: int, store: IndexStore | None
) -> Prediction | BadVideo:
    try:
        return predictor.predict(path, top_k=top_k, num_views=num_views, store=store)
    except VideoReadError as error:
        return BadVideo(str(path), str(error))
