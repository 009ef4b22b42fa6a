"""Masked pre-training: encode the visible tubelets, decode the hidden ones, compare with their pixels.

`B` batch, `V` visible, `M` decoded, `N` tokens, `D` encoder width, `E` decoder width, `P` values per tubelet.
Where decoder masking (VideoMAE V2) is used, M counts the decoded tokens alone; visible tokens among them carry
no loss.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae.model.base import VideoMAEPreTrainedModel, as_tuple
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import PositionTable
from videomae.model.encoder import (
    VideoMAEModel,
    block_settings,
    drop_path_rates,
    make_trace,
    native_grid,
)
from videomae.model.layers import Block, run_blocks
from videomae.model.outputs import VideoMAEForPreTrainingOutput
from videomae.patches import (
    TokenGrid,
    complement,
    gather_tokens,
    gather_tubelets,
    membership,
    normalize_tubelets,
)
from videomae.presets import IMAGENET_MEAN as IMAGENET_MEAN
from videomae.presets import IMAGENET_STD as IMAGENET_STD


class Decoder(nn.Module):
    """A small transformer from visible tokens and mask tokens to pixels.

    The last block computes only the tokens whose output is used: their queries attend to all tokens.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        settings = block_settings(config)
        self.decoder_layers = nn.ModuleList(
            Block(
                config.decoder_hidden_size,
                config.decoder_num_attention_heads,
                config.decoder_intermediate_size,
                settings=settings,
                drop_path=rate,
            )
            for rate in drop_path_rates(config.drop_path_rate, config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.decoder_hidden_size, eps=config.head_norm_eps)
        self.head = nn.Linear(config.decoder_hidden_size, config.values_per_tubelet)

    def forward(self, tokens: Tensor, num_decoded: int, checkpoint_every: int = 0) -> Tensor:
        """Decode `[B, V + M, E]`, mask tokens last, to predictions `[B, M, P]`."""
        tokens = run_blocks(self.decoder_layers, tokens, num_queries=num_decoded, checkpoint_every=checkpoint_every)
        predictions: Tensor = self.head(self.norm(tokens))
        return predictions


class VideoMAEForPreTraining(VideoMAEPreTrainedModel):
    """Encoder, decoder and reconstruction loss.

    Args:
        config: Sizes and switches. Published pre-training models have `use_mean_pooling=False`, that is, a final
            LayerNorm after the encoder. They are read once: a built model does not change when its configuration is
            written to, but for what outputs hold.
    """

    encoder_class: ClassVar[type[VideoMAEModel]] = VideoMAEModel

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.norm_pix_loss = config.norm_pix_loss
        self.num_channels = config.num_channels
        self.videomae = self.encoder_class(config)
        self.encoder_to_decoder = nn.Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        self.decoder = Decoder(config)
        self.positions = PositionTable(native_grid(config), config.decoder_hidden_size)
        self._init_weights()

    def _init_weights(self) -> None:
        """Draw the weights as the original does: Xavier in both stacks, torch's default between them."""
        for stack in (self.videomae, self.decoder):
            for one in stack.modules():
                if isinstance(one, nn.Linear):
                    nn.init.xavier_uniform_(one.weight)
                    if one.bias is not None:
                        nn.init.zeros_(one.bias)
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
        grid = self.videomae.embeddings.grid_of(pixel_values)
        if bool_masked_pos is not None:
            visible_indices, _ = self.videomae.split_mask(bool_masked_pos, pixel_values, given=visible_indices)
        if visible_indices is None:
            raise ValueError(
                "pre-training needs a mask: pass bool_masked_pos [B, N], True = hidden, or visible_indices"
            )
        if decode_masked_pos is not None:
            decoded_indices, _ = self.videomae.split_mask(decode_masked_pos, pixel_values, given=decoded_indices)
        weights = None
        if decoded_indices is None:
            decoded_indices = complement(visible_indices, grid.num_tokens)
        else:
            weights = ~membership(visible_indices, grid.num_tokens).gather(1, decoded_indices)  # [B, M]
        if torch.compiler.is_compiling():
            torch._check(decoded_indices.shape[1] > 0)  # an exported program takes a symbol and asks at run time
        elif decoded_indices.shape[1] == 0:
            raise ValueError("no token is to be decoded: hide at least one")
        trace = make_trace(self.config, attentions=output_attentions, states=output_hidden_states)
        encoded = self.videomae.encode(pixel_values, visible_indices, trace)
        logits = self.decode(encoded, visible_indices, decoded_indices, grid)
        targets = self.targets(pixel_values, decoded_indices)
        output = VideoMAEForPreTrainingOutput(
            loss=reconstruction_loss(logits, targets, weights),
            logits=logits,
            hidden_states=as_tuple(trace.states),
            attentions=as_tuple(trace.attentions),
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
        table = self.positions(grid).to(projected.dtype)
        num_first = encoded.shape[1] - visible_indices.shape[1]  # 1 with a CLS token, which has no position
        visible = projected[:, num_first:] + gather_tokens(table, visible_indices)
        masked = self.mask_token.to(projected.dtype) + gather_tokens(table, decoded_indices)  # [B, M, E]
        tokens = torch.cat((projected[:, :num_first], visible, masked), dim=1)
        checkpoint_every = self.checkpoint_every if self.training else 0
        logits: Tensor = self.decoder(tokens, decoded_indices.shape[1], checkpoint_every)
        return logits

    @torch.no_grad()
    def targets(self, pixel_values: Tensor, decoded_indices: Tensor) -> Tensor:
        """Return what the decoded tokens should predict, `[B, M, P]` float32.

        Only the decoded tubelets are read. With three channels the ImageNet normalization is undone first; with
        `norm_pix_loss` each tubelet and channel is then normalized.
        """
        size = self.videomae.embeddings.tubelet
        # The indexing inside copies: `tubelets` is written in place from here on, for every pass costs.
        tubelets = gather_tubelets(pixel_values, decoded_indices, size).float().flatten(3)  # [B, M, C, s]
        # Numbers, not buffers: exact in a bfloat16 model, there after a start on the meta device, no copy a step.
        is_rgb = self.num_channels == len(IMAGENET_MEAN)
        if self.norm_pix_loss:
            normalize_tubelets(tubelets, IMAGENET_STD if is_rgb else (1.0,) * self.num_channels)
        elif is_rgb:
            for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
                tubelets[:, :, channel].mul_(std).add_(mean)
        return tubelets.transpose(2, 3).flatten(2)  # [B, M, P], channel fastest


def reconstruction_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean squared error, 0-d float32.

    Args:
        logits: `[B, M, P]`.
        targets: `[B, M, P]` float32.
        weights: `[B, M]` bool or float; tokens with 0 do not count. None: all count.

    Source: VideoMAE, equation 1; VideoMAE V2, which divides by the number of tokens that count.
    """
    if weights is None:
        return F.mse_loss(logits.float(), targets)
    per_token = F.mse_loss(logits.float(), targets, reduction="none").mean(dim=-1)  # [B, M]
    counted = weights.to(per_token.dtype)
    return (per_token * counted).sum() / counted.sum()
