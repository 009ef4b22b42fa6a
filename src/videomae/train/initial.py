"""The network that a run starts from, where it does not start from random weights."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from videomae.model.base import VideoMAEPreTrainedModel
from videomae.weights.report import LoadReport

Model = TypeVar("Model", bound=VideoMAEPreTrainedModel)


def load_initial(cls: type[Model], source: str, **options: Any) -> tuple[Model, LoadReport]:
    """Load a network to go on training.

    Args:
        cls: The model class to train.
        source: Folder of a model or of a run, weights file, or Hub name; see `from_pretrained`.
        **options: As for `from_pretrained`.

    Returns:
        The model in train mode, in float32, and where each of its tensors came from.

    Raises:
        WeightsError: If there is nothing to load, or what there is is damaged or does not fit.
        ConfigError: If an option does not fit the network.
    """
    with warnings.catch_warnings():
        # Fresh heads, repairs and what is left aside are in the report, which is printed.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"videomae\.")
        model, report = cls.from_pretrained(source, output_loading_info=True, **options)
    return model.train(), report


def origin_lines(report: LoadReport | None) -> list[str]:
    """Tell where the weights came from; None: all are freshly made."""
    return report.lines() if report else ["weights: all freshly made"]
