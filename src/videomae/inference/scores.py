"""What a classifier's outputs mean: one answer for prediction, evaluation and pipeline.

A choice between classes is a softmax; several labels at once, or a single output, are independent sigmoids; the
outputs of a regression are values as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from videomae.errors import ConfigError
from videomae.model.config import VideoMAEConfig

Activation: TypeAlias = Literal["softmax", "sigmoid", "none"]
DEFAULT_THRESHOLD = 0.5  # of a sigmoid: the label is more likely there than not


def usual_activation(config: VideoMAEConfig) -> Activation:
    """Return what makes scores of logits, by the problem type and the number of outputs.

    As transformers' pipelines; its one for videos puts a softmax over a single output, which is 1 for every video.
    """
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def scores_of(logits: Tensor, activation: Activation) -> Tensor:
    """Return the scores of logits `[..., K]`, of their shape and dtype.

    Raises:
        ConfigError: If there is no such activation.
    """
    match activation:
        case "softmax":
            return logits.softmax(dim=-1)
        case "sigmoid":
            return logits.sigmoid()
        case "none":
            return logits
    raise ConfigError(f"function_to_apply is {activation!r}; choose from {', '.join(get_args(Activation))}")


def settled_thresholds(thresholds: Mapping[str, float] | None, classes: Sequence[str]) -> tuple[float, ...]:
    """Return the score from which each label counts as present, `[K]`; 0.5 for a label without a threshold.

    Raises:
        ConfigError: If a threshold is for a label that the classifier does not have.
    """
    given = thresholds or {}
    unknown = sorted(set(given).difference(classes))
    if unknown:
        raise ConfigError(
            f"thresholds names {unknown[0]!r}, which is none of the classifier's {len(classes)} labels: name them as "
            "the classifier does"
        )
    return tuple(given.get(name, DEFAULT_THRESHOLD) for name in classes)
