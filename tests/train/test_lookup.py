"""The decoder that starts as a look-up of neighbors: where a hidden token looks before any training."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae.masking import MaskConfig, draw_masks
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.layers import attention_probabilities
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import gather_tokens
from videomae.train.lookup import initialize_lookup


def make(*, lookup: bool) -> VideoMAEForPreTraining:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=64,
        patch_size=8,
        num_frames=8,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        use_mean_pooling=False,
    )
    model = VideoMAEForPreTraining(config).eval()
    if lookup:
        initialize_lookup(model)
    return model


@torch.no_grad()
def attention_of_hidden_tokens(model: VideoMAEForPreTraining) -> tuple[Tensor, Tensor, Tensor]:
    """Return the attention `[B, H, M, V + M]` of hidden tokens, and visible and hidden indices."""
    grid = native_grid(model.config)
    masks = draw_masks(MaskConfig(kind="tube", ratio=0.75), grid, batch=2, generator=torch.Generator().manual_seed(0))
    video = torch.randn(2, 8, 3, 64, 64)
    encoded = model.videomae(video, visible_indices=masks.visible).last_hidden_state
    table = model.position_embeddings
    seen = model.encoder_to_decoder(encoded) + gather_tokens(table, masks.visible)
    asked = model.mask_token + gather_tokens(table, masks.decoded)
    block = model.decoder.decoder_layers[0]
    tokens = block.layernorm_before(torch.cat((seen, asked), dim=1))
    attention = block.attention.attention
    query = attention._split_heads(attention.query(tokens[:, -asked.shape[1] :]))
    return attention_probabilities(query, attention._split_heads(attention.key(tokens))), masks.visible, masks.decoded


def near_visible(attention: Tensor, visible: Tensor, hidden: Tensor) -> float:
    """Return the attention that goes to visible tokens within 1.5 positions in space and time."""
    places = torch.stack((visible // 64, visible // 8 % 8, visible % 8), -1).float()
    own = torch.stack((hidden // 64, hidden // 8 % 8, hidden % 8), -1).float()
    near = torch.cdist(own, places) <= 1.5  # [B, M, V]
    share = (attention[..., : visible.shape[1]] * near[:, None]).sum(-1)
    return float(share.mean(dim=1)[near.any(-1)].mean())


def test_hidden_tokens_look_at_visible_ones_and_most_at_their_neighbors() -> None:
    attention, visible, hidden = attention_of_hidden_tokens(make(lookup=True))
    plain, _, _ = attention_of_hidden_tokens(make(lookup=False))
    to_visible = float(attention[..., : visible.shape[1]].sum(-1).mean())
    plain_to_visible = float(plain[..., : visible.shape[1]].sum(-1).mean())
    assert to_visible > 0.5 > plain_to_visible
    assert near_visible(attention, visible, hidden) > 5 * near_visible(plain, visible, hidden)


def test_only_values_change_and_the_encoder_keeps_its_own() -> None:
    plain, lookup = make(lookup=False).state_dict(), make(lookup=True).state_dict()
    assert {name: one.shape for name, one in plain.items()} == {name: one.shape for name, one in lookup.items()}
    for name, one in plain.items():
        if name.startswith("videomae."):
            assert torch.equal(one, lookup[name])
