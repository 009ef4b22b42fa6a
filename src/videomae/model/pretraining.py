"""Masked pre-training: encode the visible tubelets, decode the hidden ones, compare with their pixels.

`B` batch, `V` visible, `M` decoded, `N` tokens, `D` encoder width, `E` decoder width, `P` values per tubelet.
Where decoder masking (VideoMAE V2) is used, M counts the decoded tokens alone; visible tokens among them carry
no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from videomae.engine.compiled import compiled
from videomae.engine.parted import loss_in_parts
from videomae.model.base import VideoMAEPreTrainedModel, draw_linear, drawn_modules
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid, trained_grid, tubelet_size
from videomae.model.encoder import VideoMAEModel, drop_path_rates, encode
from videomae.model.layers import VideoMAELayer, first_of, is_untouched, normalized, run_layers
from videomae.model.outputs import VideoMAEDecoderOutput, VideoMAEForPreTrainingOutput
from videomae.patches import (
    TokenGrid,
    complement,
    gather_tokens,
    membership,
)
from videomae.pixel_loss import pixel_loss, pixel_targets
from videomae.positions import PositionTables
from videomae.presets import IMAGENET_MEAN as IMAGENET_MEAN
from videomae.presets import IMAGENET_STD as IMAGENET_STD


class VideoMAEDecoder(nn.Module):
    """A small transformer from visible tokens and mask tokens to pixels.

    The last layer computes only the tokens whose output is used: their queries attend to all tokens.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = decoder_config(config)
        self.checkpoint_every = 0  # layers; 0: activations are kept
        rates = drop_path_rates(config.drop_path_rate, config.decoder_num_hidden_layers)
        self.decoder_layers = nn.ModuleList(VideoMAELayer(self.config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.decoder_hidden_size, eps=config.head_norm_eps)
        self.head = nn.Linear(config.decoder_hidden_size, config.values_per_tubelet)

    def forward(self, hidden_states: Tensor, return_token_num: int) -> VideoMAEDecoderOutput:
        """Decode `[B, V + M, E]`, mask tokens last, to predictions `[B, M, P]` of the last `return_token_num`."""
        hidden_states = run_layers(
            self.decoder_layers,
            hidden_states,
            num_queries=return_token_num,
            checkpoint_every=self.checkpoint_every if self.training else 0,
        )
        return VideoMAEDecoderOutput(logits=self.head(normalized(self.norm, hidden_states)))


def decoder_config(config: VideoMAEConfig) -> VideoMAEConfig:
    """Return a configuration that has the decoder's sizes in the encoder's fields, as upstream."""
    return config.replace(
        hidden_size=config.decoder_hidden_size,
        num_hidden_layers=config.decoder_num_hidden_layers,
        num_attention_heads=config.decoder_num_attention_heads,
        intermediate_size=config.decoder_intermediate_size,
    )


class VideoMAEForPreTraining(VideoMAEPreTrainedModel):
    """Encoder, decoder and reconstruction loss.

    `position_embeddings` is the decoder's table `[1, N, E]` of the native grid; what is put in its place is used.

    Args:
        config: Sizes and switches. Published pre-training models have `use_mean_pooling=False`, that is, a final
            LayerNorm after the encoder. They are read once: a built model does not change when its configuration is
            written to, but for what outputs hold.
    """

    encoder_class: ClassVar[type[VideoMAEModel]] = VideoMAEModel

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.norm_pix_loss = config.norm_pix_loss
        self.compiles_loss = False  # set by `train/compiled.py`; the loss and its targets are no module
        self.clips_decoded_at_once: int | None = None  # set by `train/decoding.py`; logits have no gradient then
        self.num_channels = config.num_channels
        self.tubelet = tubelet_size(config)
        self.videomae = self.encoder_class(config)
        self.encoder_to_decoder = nn.Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        width, trained = config.decoder_hidden_size, trained_grid(config)
        self.position_tables = PositionTables(width, native_grid(config), trained)
        self.position_embeddings = self.position_tables.native
        self.decoder = VideoMAEDecoder(config)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the weights as the original does: Xavier in both stacks, torch's default for the projection between.

        Source: VideoMAE (Tong et al. 2022), pre-training model.
        """
        for stack in (self.videomae, self.decoder):
            for module in drawn_modules(stack):
                draw_linear(module, nn.init.xavier_uniform_)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that embeds tubelets."""
        return self.videomae.get_input_embeddings()

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        decode_masked_pos: Tensor | None = None,
        visible_indices: Tensor | None = None,
        decoded_indices: Tensor | None = None,
    ) -> VideoMAEForPreTrainingOutput | tuple[Any, ...]:
        """Predict hidden tubelets and measure the error.

        Args:
            pixel_values: `[B, T, C, H, W]` pixels, normalized with the ImageNet mean and std.
            bool_masked_pos: `[B, N]` bool, True = hidden from the encoder. Needed unless indices are given.
            output_attentions: Return the encoder's attention probabilities; None: as configured.
            output_hidden_states: Return the encoder's hidden states; None: as configured.
            return_dict: False returns a tuple; None: as configured.
            decode_masked_pos: `[B, N]` bool, True = not decoded (VideoMAE V2's decoder masking). None: what the
                encoder does not see is decoded.
            visible_indices: `[B, V]` int64 token indices, instead of `bool_masked_pos`.
            decoded_indices: `[B, M]` int64 token indices, instead of `decode_masked_pos`.

        Returns:
            Loss, 0-d float32, the mean over decoded tokens that the encoder did not see; logits `[B, M, P]` in
            the order of the decoded token indices.

        Raises:
            ValueError: If masks and indices are both or neither given, or masks have unequal counts.

        Source: VideoMAE (Tong et al. 2022), section 3.3; VideoMAE V2 (Wang et al. 2023), equations 3 and 4.
        """
        embeddings = self.videomae.embeddings
        grid = embeddings.grid_of(pixel_values)
        chosen: dict[str, Any] = {"visible_indices": visible_indices}
        if bool_masked_pos is not None:
            chosen = {"bool_masked_pos": bool_masked_pos}  # the encoder gets what it gets upstream
            visible_indices, _ = embeddings.split_mask(bool_masked_pos, pixel_values, given=visible_indices)
        if visible_indices is None:
            raise ValueError(
                "pre-training needs a mask: pass bool_masked_pos [B, N], True = hidden, or visible_indices"
            )
        if decode_masked_pos is not None:
            decoded_indices, _ = embeddings.split_mask(decode_masked_pos, pixel_values, given=decoded_indices)
        weights = None
        if decoded_indices is None:
            decoded_indices = complement(visible_indices, grid.num_tokens)
        else:
            weights = ~membership(visible_indices, grid.num_tokens).gather(1, decoded_indices)  # [B, M]
        if torch.compiler.is_compiling():
            torch._check(decoded_indices.shape[1] > 0)  # an exported program takes a symbol and asks at run time
        elif decoded_indices.shape[1] == 0:
            raise ValueError("no token is to be decoded: hide at least one")
        encoded = encode(
            self.videomae, pixel_values, **chosen, **self.wanted(output_attentions, output_hidden_states)
        )
        if not encoded:
            return self.format_output(VideoMAEForPreTrainingOutput(), return_dict)
        states = encoded.last_hidden_state
        error = compiled(pixel_loss) if self.compiles_loss and not torch.compiler.is_compiling() else pixel_loss

        def loss_of(states: Tensor, part: slice, count: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
            logits = self.decode(states, visible_indices[part], decoded_indices[part], grid)
            wanted = (pixel_values[part], decoded_indices[part], None if weights is None else weights[part])
            return error(logits, *wanted, self.tubelet, normalized=self.norm_pix_loss, count=count), logits

        rows = self.clips_decoded_at_once if torch.is_grad_enabled() else None
        if rows is not None and rows < len(states) and is_untouched(self.decoder, VideoMAEDecoder):
            count = float(decoded_indices.numel()) if weights is None else weights.sum()
            decoder = (self.mask_token, *self.encoder_to_decoder.parameters(), *self.decoder.parameters())
            loss, logits = loss_in_parts(partial(loss_of, count=count), states, decoder, rows=rows)
        else:
            loss, logits = loss_of(states, slice(None))
        output = VideoMAEForPreTrainingOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.format_output(output, return_dict)

    def decode(self, encoded: Tensor, visible_indices: Tensor, decoded_indices: Tensor, grid: TokenGrid) -> Tensor:
        """Predict the decoded tokens from encoder states.

        Args:
            encoded: `[B, V, D]`, one more in front with a CLS token.
            visible_indices: `[B, V]`.
            decoded_indices: `[B, M]`.
            grid: The token grid of the video.

        Returns:
            `[B, M, P]`.
        """
        projected = self.encoder_to_decoder(encoded)  # [B, V, E]
        table = self.position_tables.table(self.position_embeddings, grid, projected.device).to(projected.dtype)
        num_first = encoded.shape[1] - visible_indices.shape[1]  # 1 with a CLS token, which has no position
        visible = projected[:, num_first:] + gather_tokens(table, visible_indices)
        hidden = self.mask_token.to(projected.dtype) + gather_tokens(table, decoded_indices)  # [B, M, E]
        tokens = torch.cat((projected[:, :num_first], visible, hidden), dim=1)
        return first_of(self.decoder(tokens, decoded_indices.shape[1]))

    def targets(self, pixel_values: Tensor, decoded_indices: Tensor) -> Tensor:
        """Return what the decoded tokens should predict, `[B, M, P]` float32; see `pixel_targets`."""
        return pixel_targets(pixel_values, decoded_indices, self.tubelet, normalized=self.norm_pix_loss)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.position_embeddings = self.position_tables.follow(self.position_embeddings, self)
        return self
