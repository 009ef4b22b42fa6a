"""The encoder: a vision transformer over the visible tubelets of a video.

`B T C H W` video, `N` tokens, `V` visible tokens, `D` width. Only visible tubelets are read and embedded. There is
no CLS token unless the configuration asks for one; then it stands first, before the visible tokens.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from videomae.model.base import VideoMAEPreTrainedModel, as_tuple
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import VideoMAEEmbeddings, VideoMAEPatchEmbeddings
from videomae.model.layers import VideoMAELayer, first_of, normalized, run_layers
from videomae.model.outputs import BaseModelOutput


class VideoMAEEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_every = 0  # layers; 0: activations are kept
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.layer = nn.ModuleList(VideoMAELayer(config, rate) for rate in rates)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Run all layers.

        Args:
            hidden_states: `[B, V, D]`.
            output_attentions: Return attention probabilities.
            output_hidden_states: Return the input of the first layer and the output of each.

        Returns:
            `last_hidden_state` `[B, V, D]`, without the final norm.
        """
        states: list[Tensor] | None = [] if output_hidden_states else None
        attentions: list[Tensor] | None = [] if output_attentions else None
        hidden_states = run_layers(
            self.layer,
            hidden_states,
            checkpoint_every=self.checkpoint_every if self.training else 0,
            states=states,
            attentions=attentions,
        )
        return BaseModelOutput(
            last_hidden_state=hidden_states, hidden_states=as_tuple(states), attentions=as_tuple(attentions)
        )


class VideoMAEModel(VideoMAEPreTrainedModel):
    """The bare encoder.

    Args:
        config: Sizes and switches. `use_mean_pooling=False` adds a final LayerNorm, as upstream.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.embeddings = VideoMAEEmbeddings(config)
        self.encoder = VideoMAEEncoder(config)
        self.layernorm = (
            None if config.use_mean_pooling else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        )
        self.post_init()

    def get_input_embeddings(self) -> VideoMAEPatchEmbeddings:
        """Return the module that embeds tubelets."""
        return self.embeddings.patch_embeddings

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        visible_indices: Tensor | None = None,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """Encode a video.

        Args:
            pixel_values: `[B, T, C, H, W]` normalized pixels, any T, H and W that tubelets divide.
            bool_masked_pos: `[B, N]` bool, True = hidden; None and no indices: every token is visible.
            output_attentions: Return attention probabilities; None: as configured.
            output_hidden_states: Return hidden states; None: as configured.
            return_dict: False returns a tuple; None: as configured.
            visible_indices: `[B, V]` int64, indices of the visible tokens, instead of a mask.

        Returns:
            `last_hidden_state` `[B, V, D]`; with a CLS token one more, the first.

        Raises:
            ValueError: If the video does not fit the tubelets, or the videos hide unequal numbers of tokens.
        """
        chosen = {} if visible_indices is None else {"visible_indices": visible_indices}
        hidden_states = first_of(self.embeddings(pixel_values, bool_masked_pos, **chosen))
        encoded = self.encoder(hidden_states, **self.wanted(output_attentions, output_hidden_states))
        tokens = first_of(encoded)
        if self.layernorm is not None:
            tokens = normalized(self.layernorm, tokens)
        output = BaseModelOutput(
            last_hidden_state=tokens,
            hidden_states=getattr(encoded, "hidden_states", None),
            attentions=getattr(encoded, "attentions", None),
        )
        return self.format_output(output, return_dict)


def drop_path_rates(last_rate: float, depth: int) -> list[float]:
    """Return stochastic-depth rates rising linearly from 0 to `last_rate` over the layers."""
    return [last_rate * number / max(depth - 1, 1) for number in range(depth)]


def encode(model: nn.Module, pixel_values: Tensor, **options: Any) -> BaseModelOutput:
    """Call an encoder for its output object, whatever its configuration says about tuples.

    The object has no entries where the encoder returns nothing, as one whose `forward` was replaced may.
    """
    if not getattr(getattr(model, "config", None), "return_dict", True):
        options["return_dict"] = True
    output = model(pixel_values, **options)
    if isinstance(output, BaseModelOutput):
        return output
    return BaseModelOutput(cast("Tensor", None) if output is None else first_of(output))
