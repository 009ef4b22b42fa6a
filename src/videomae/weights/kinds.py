"""The kinds of model, one literal row each: what a file holds, which class loads it, what messages call it.

A new head is one row here and one file in `model/`. Classes are named by strings, because this package loads and
saves without importing any model: whoever loads hands in the class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ENCODER_PREFIX = "videomae."  # before the encoder's tensors in a model with a head, as in transformers


@dataclass(frozen=True)
class ModelKind:
    """A kind of model."""

    name: str
    """Key of the row."""
    class_name: str
    """The model class, a public name of the package."""
    module: str
    """Where the class is defined."""
    base_prefix: str
    """Before the encoder's tensors in the class's state dict; empty for the bare encoder."""
    parts: tuple[str, ...]
    """How the names of the tensors start that only this kind has; none for the bare encoder."""
    head: str
    """What messages call those tensors together; empty for the bare encoder."""
    holds: str
    """What messages say that a file of this kind holds."""
    hint: str
    """What to do when a file lacks the head."""
    summary: str
    """First words of the model card."""
    task: str
    """The Hub's name of the task; empty where it has none."""
    has_classes: bool = False
    """Whether `id2label` of its configuration names classes."""


KINDS: dict[str, ModelKind] = {
    "classification": ModelKind(
        name="classification",
        class_name="VideoMAEForVideoClassification",
        module="videomae.model.classification",
        base_prefix=ENCODER_PREFIX,
        parts=("classifier.",),
        head="classifier",
        holds="a classifier",
        hint="fine-tune it first, or give a fine-tuned model",
        summary="A VideoMAE video classifier",
        task="video-classification",
        has_classes=True,
    ),
    "pretraining": ModelKind(
        name="pretraining",
        class_name="VideoMAEForPreTraining",
        module="videomae.model.pretraining",
        base_prefix=ENCODER_PREFIX,
        parts=("decoder.", "encoder_to_decoder.", "mask_token"),
        head="decoder",
        holds="an encoder and its decoder",
        hint="give a pre-trained model that still has its decoder",
        summary="A VideoMAE model pre-trained by masked autoencoding, encoder and decoder",
        task="",
    ),
    "encoder": ModelKind(
        name="encoder",
        class_name="VideoMAEModel",
        module="videomae.model.encoder",
        base_prefix="",
        parts=(),
        head="",
        holds="a bare encoder",
        hint="",
        summary="A VideoMAE video encoder",
        task="feature-extraction",
    ),
}
DECODER_PARTS = KINDS["pretraining"].parts


def kind_of_tensors(names: Iterable[str]) -> ModelKind:
    """Return the kind of a file, by the names that its tensors have here: the first row with a part among them."""
    known = tuple(names)
    for row in KINDS.values():
        if row.parts and any(name.startswith(row.parts) for name in known):
            return row
    return KINDS["encoder"]


def kind_of_class(cls: type) -> ModelKind:
    """Return the kind of a model class, or of a class that inherits from one."""
    by_class = {row.class_name: row for row in KINDS.values()}
    return next((by_class[base.__name__] for base in cls.__mro__ if base.__name__ in by_class), KINDS["encoder"])


def kind_of_part(name: str) -> ModelKind | None:
    """Return the kind that alone has a tensor; None for tensors of the encoder."""
    return next((row for row in KINDS.values() if row.parts and name.startswith(row.parts)), None)
