"""The ranges of 8-bit integers, found on windows that are spread over all the videos to come."""

from __future__ import annotations

import os
from collections.abc import Sequence

from videomae.data.datasets import BadVideo
from videomae.inference.files import list_inputs
from videomae.inference.predictor import Predictor
from videomae.inference.some_windows import NUM_WINDOWS, spread_windows
from videomae.inference.window_choice import WindowChoice
from videomae.video.index_store import IndexStore


def calibrate(
    predictor: Predictor, videos: Sequence[str | os.PathLike[str]], *, store: IndexStore | None = None
) -> str | None:
    """Find the ranges that a predictor's 8-bit integers need, where they need any and have none.

    Args:
        predictor: The classifier.
        videos: Files, folders of them of any depth, manifests, addresses: those to come, or some like them.
        store: Keeps what is known of the files of a collection.

    Returns:
        For people, what rounding changes on these windows; None where there was nothing to do, or no window.
    """
    if predictor.is_calibrated:
        return None
    items = [item for item in list_inputs(videos) if not isinstance(item, BadVideo)]
    is_many = len(items) >= NUM_WINDOWS
    choice = WindowChoice() if is_many else WindowChoice(step_frames=predictor.clip.num_frames)
    clips = list(spread_windows(items, choice, clip=predictor.clip, processor=predictor.processor, store=store))
    return predictor.calibrate_on(clips) if clips else None
