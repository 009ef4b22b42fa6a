"""Which parts of a model are compiled for training, where `loop.compile` says so."""

from __future__ import annotations

from torch import nn

from videomae.engine.compiled import compile_each
from videomae.model.embeddings import VideoMAEEmbeddings
from videomae.model.layers import VideoMAELayer
from videomae.model.pretraining import VideoMAEForPreTraining


def compile_parts(model: nn.Module) -> int:
    """Compile the blocks, the embedding and the loss with its targets; the model is otherwise what it was.

    Args:
        model: Of this package, or with parts of it.

    Returns:
        The number of compiled modules.
    """
    if isinstance(model, VideoMAEForPreTraining):
        model.compiles_loss = True
    return compile_each(one for one in model.modules() if isinstance(one, (VideoMAELayer, VideoMAEEmbeddings)))
