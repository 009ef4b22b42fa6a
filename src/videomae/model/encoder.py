"""The encoder: a vision transformer over the visible tubelets of a video.

`B T C H W` video, `N` tokens, `V` visible tokens, `D` width. Only visible tubelets are read and embedded. There is
no CLS token unless the configuration asks for one; then it stands first, before the visible tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae.model.base import VideoMAEPreTrainedModel, as_tuple
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import PatchEmbeddings, PositionTable
from videomae.model.layers import Block, BlockSettings, Trace, run_blocks
from videomae.model.outputs import EncoderOutput
from videomae.patches import (
    TokenGrid,
    TubeletSize,
    cut_tubelets,
    gather_tokens,
    gather_tubelets,
    split_by_mask,
    token_grid,
)


class Embeddings(nn.Module):
    """Tubelets to tokens with their position codes."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.tubelet = tubelet_size(config)
        self.patch_embeddings = PatchEmbeddings(
            config.num_channels,
            config.hidden_size,
            (self.tubelet.frames, self.tubelet.height, self.tubelet.width),
        )
        self.positions = PositionTable(native_grid(config), config.hidden_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.use_cls_token else None

    def forward(self, pixel_values: Tensor, visible_indices: Tensor | None) -> Tensor:
        """Embed the visible tubelets of `[B, T, C, H, W]`, or all of them: `[B, V, D]`, one more with a CLS token."""
        grid = self.grid_of(pixel_values)
        positions = self.positions(grid)
        if visible_indices is None:
            tubelets = cut_tubelets(pixel_values, self.tubelet)
        else:
            if visible_indices.shape[1] == 0:
                raise ValueError("every token is hidden from the encoder: leave at least one visible")
            tubelets = gather_tubelets(pixel_values, visible_indices, self.tubelet)
            positions = gather_tokens(positions, visible_indices)  # [B, V, D]
        weight = self.patch_embeddings.projection.weight
        tokens: Tensor = self.patch_embeddings(tubelets.to(weight.dtype))
        # The residual stream has the dtype of the projection (bf16 under autocast), as in the original.
        tokens = tokens + positions.to(tokens.dtype)
        if self.cls_token is not None:
            first = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat((first, tokens), dim=1)
        return tokens

    def grid_of(self, pixel_values: Tensor) -> TokenGrid:
        """Return the token grid of a video batch.

        Raises:
            ValueError: If it is not `[B, T, C, H, W]` with the configured channels, or tubelets do not divide it.
        """
        if pixel_values.dim() != 5:
            raise ValueError(f"pixel_values has shape {list(pixel_values.shape)}; it must be [B, T, C, H, W]")
        _, T, C, H, W = pixel_values.shape
        if self.num_channels != C:
            raise ValueError(
                f"pixel_values has {C} channels in [B, T, C, H, W], but the configuration has num_channels "
                f"{self.num_channels}: pass frames with {self.num_channels} channels"
            )
        return token_grid(T, H, W, self.tubelet)


class Encoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        settings = block_settings(config)
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.layer = nn.ModuleList(
            Block(
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                settings=settings,
                drop_path=rate,
            )
            for rate in rates
        )


class VideoMAEModel(VideoMAEPreTrainedModel):
    """The bare encoder.

    Args:
        config: Sizes and switches. `use_mean_pooling=False` adds a final LayerNorm, as upstream.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = (
            None if config.use_mean_pooling else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        )
        init_truncated_normal(self, std=config.initializer_range)

    def get_input_embeddings(self) -> PatchEmbeddings:
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
    ) -> EncoderOutput | tuple[Tensor, ...]:
        """Encode a video.

        Args:
            pixel_values: `[B, T, C, H, W]` normalized pixels, any T, H and W that tubelets divide.
            bool_masked_pos: `[B, N]` bool, True = hidden; None and no indices: every token is visible.
            output_attentions: Return attention probabilities; None: as configured.
            output_hidden_states: Return hidden states; None: as configured.
            return_dict: False returns a tuple; None: as configured.
            visible_indices: `[B, V]` int64, ready indices of the visible tokens, instead of a mask.

        Returns:
            `last_hidden_state` `[B, V, D]`; with a CLS token one more, the first.

        Raises:
            ValueError: If the video does not fit the tubelets, or the videos hide unequal numbers of tokens.
        """
        if bool_masked_pos is not None:
            visible_indices, _ = self.split_mask(bool_masked_pos, pixel_values, given=visible_indices)
        trace = make_trace(self.config, attentions=output_attentions, states=output_hidden_states)
        tokens = self.encode(pixel_values, visible_indices, trace)
        output = EncoderOutput(
            last_hidden_state=tokens,
            hidden_states=as_tuple(trace.states),
            attentions=as_tuple(trace.attentions),
        )
        return self.format_output(output, return_dict)

    def encode(self, pixel_values: Tensor, visible_indices: Tensor | None, trace: Trace) -> Tensor:
        """Return the token states `[B, V, D]` alone; what the heads build on."""
        tokens: Tensor = self.embeddings(pixel_values, visible_indices)
        tokens = run_blocks(
            self.encoder.layer, tokens, checkpoint_every=self.checkpoint_every if self.training else 0, trace=trace
        )
        return tokens if self.layernorm is None else self.layernorm(tokens)

    def split_mask(self, mask: Tensor, pixel_values: Tensor, *, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Turn a mask `[B, N]` into the indices of its False and of its True tokens.

        Raises:
            ValueError: If the mask does not fit the video, its rows have unequal counts, or indices came with it.
        """
        if given is not None:
            raise ValueError("a mask and indices were both given: pass one of them")
        expected = (pixel_values.shape[0], self.embeddings.grid_of(pixel_values).num_tokens)
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ValueError(
                f"the mask has shape {list(mask.shape)} and dtype {mask.dtype}; this video needs "
                f"{list(expected)} and torch.bool"
            )
        return split_by_mask(mask.to(pixel_values.device))


def tubelet_size(config: VideoMAEConfig) -> TubeletSize:
    """Return the size of a tubelet."""
    return TubeletSize(config.tubelet_size, *config.patch_height_width)


def native_grid(config: VideoMAEConfig) -> TokenGrid:
    """Return the token grid of a clip of the configured size."""
    return token_grid(config.num_frames, *config.image_height_width, tubelet_size(config))


def block_settings(config: VideoMAEConfig) -> BlockSettings:
    """Return what encoder and decoder blocks share."""
    return BlockSettings(
        qv_bias=config.qv_bias,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        activation=config.hidden_act,
        norm_eps=config.layer_norm_eps,
        init_values=config.init_values,
    )


def drop_path_rates(last_rate: float, depth: int) -> list[float]:
    """Return stochastic-depth rates rising linearly from 0 to `last_rate` over the blocks."""
    return [last_rate * number / max(depth - 1, 1) for number in range(depth)]


def make_trace(config: VideoMAEConfig, *, attentions: bool | None, states: bool | None) -> Trace:
    """Return a trace of what the call, or else the configuration, asks for."""
    return Trace(
        states=config.output_hidden_states if states is None else states,
        attentions=config.output_attentions if attentions is None else attentions,
    )


def init_truncated_normal(module: nn.Module, *, std: float) -> None:
    """Draw linear weights from a truncated normal of `std`, zero their biases; other parameters keep theirs.

    Source: VideoMAE, fine-tuning model. The tubelet projection keeps torch's Conv3d default, as there.
    """
    for one in module.modules():
        if isinstance(one, nn.Linear):
            nn.init.trunc_normal_(one.weight, std=std)
            if one.bias is not None:
                nn.init.zeros_(one.bias)
    for name, parameter in module.named_parameters():
        if name.endswith("cls_token"):
            nn.init.trunc_normal_(parameter, std=std)
