"""Fine-tuning with tokens merged in every block: what a step calls in place of the classifier.

The weights, their names and what is saved are the classifier's own: evaluation and every later use see a plain model,
which takes all tokens unless a speed is asked for.
"""

from __future__ import annotations

from torch import Tensor, nn

from videomae.errors import ConfigError
from videomae.inference.token_merging import MergingClassifier
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.embeddings import native_grid
from videomae.model.encoder import VideoMAEEncoder, VideoMAEModel
from videomae.model.outputs import ImageClassifierOutput
from videomae.recipes.schema import FinetuneRecipe


class MergingModule(nn.Module):
    """A classifier whose tokens are merged, as a module that DDP can wrap.

    Args:
        model: The classifier, on the run's device.
        speed: At least 1: how many times fewer operations a forward pass has.
    """

    def __init__(self, model: VideoMAEForVideoClassification, speed: float) -> None:
        super().__init__()
        self.model = model
        self.merging = MergingClassifier(model, speed)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Classify `[B, T, C, H, W]`; returns logits `[B, K]`."""
        return self.merging(pixel_values)


def merging_module(model: VideoMAEForVideoClassification, recipe: FinetuneRecipe) -> MergingModule | None:
    """Return what a step calls; None at speed 1, where that is the model.

    Args:
        model: After `train.adapting.choose_trained`.
        recipe: Of the run.

    Raises:
        ConfigError: If the recipe has what does not go with merging, the model has too few tokens for the speed, or
            its forward pass is not this package's.
    """
    speed = recipe.speed
    if speed == 1.0:
        return None
    if recipe.parallel.kind == "fsdp":
        raise ConfigError(
            f"speed is {speed:g} and parallel.kind is 'fsdp': blocks that merge tokens are not called as the modules "
            "whose weights FSDP2 gathers: use parallel.kind ddp, or speed 1"
        )
    if recipe.loop.compile is True:
        raise ConfigError(
            f"speed is {speed:g} and loop.compile is true: every block has another number of tokens, and would be "
            "compiled anew: set loop.compile to auto or false, or speed to 1"
        )
    parts = (
        (type(model).forward, VideoMAEForVideoClassification.forward),
        (type(model.videomae).forward, VideoMAEModel.forward),
        (type(model.videomae.encoder).forward, VideoMAEEncoder.forward),
    )
    if any(found is not ours for found, ours in parts):
        raise ConfigError(
            f"speed is {speed:g}, and {type(model).__name__} has a forward pass of its own, around which tokens "
            "cannot be merged: use speed 1"
        )
    return MergingModule(model, speed)


def merged_tokens(model: VideoMAEForVideoClassification, recipe: FinetuneRecipe) -> int:
    """Return how many tokens each block merges in training, 0 at speed 1; see `merging_module`."""
    called = merging_module(model, recipe)
    return 0 if called is None else called.merging.merged(native_grid(model.config))


def merging_lines(model: VideoMAEForVideoClassification, recipe: FinetuneRecipe) -> list[str]:
    """Tell what is merged, and where; nothing at speed 1."""
    called = merging_module(model, recipe)
    if called is None:
        return []
    where = "in training; evaluation takes --evaluation.speed, and videomae predict --speed, which are 1 unless given"
    return [f"{called.merging.line()}, {where}"]
