import pytest
import torch
from benchmarks.contenders import SIZES, random_batch, transformers_model
from benchmarks.flops import Flops, block_flops, classification_flops, pretraining_flops
from torch.utils.flop_counter import FlopCounterMode

from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import membership

# GFLOPs a clip: embed, encoder, decoder, head, forward, step. Counted independently of this code, by hand, for
# decoders of depth 4; the dense forward passes of the papers (57, 180, 597, 1192 G multiply-adds) agree with it.
TABLE = """
S naive 1.85 7.29 13.10 0.83 23.1 67.4
S exact 0.19 7.29 12.79 0.83 21.1 63.1
S dual 0.19 7.29 5.13 0.42 13.0 38.9
B naive 3.70 28.22 37.30 1.66 70.9 208.9
B exact 0.38 28.22 36.44 1.66 66.7 199.7
B dual 0.38 28.22 16.13 0.83 45.6 136.3
L naive 4.93 99.32 59.60 2.21 166.1 493.3
L exact 0.50 99.32 58.25 2.21 160.3 480.4
L dual 0.50 99.32 26.74 1.11 127.7 382.5
H naive 6.17 205.73 59.60 2.21 273.7 815.0
H exact 0.63 205.73 58.25 2.21 266.8 799.8
H dual 0.63 205.73 26.74 1.11 234.2 702.0
g naive 6.78 328.96 59.60 2.21 397.6 1185.9
g exact 0.69 328.96 58.25 2.21 390.1 1169.7
g dual 0.69 328.96 26.74 1.11 357.5 1071.8
"""
SHORT_DECODER = {"decoder_num_hidden_layers": 4, "decoder_hidden_size": 512, "decoder_intermediate_size": 2048}
CONFIGS = {
    "S": VideoMAEConfig.preset("small"),
    "B": VideoMAEConfig.preset("base"),
    "L": VideoMAEConfig.preset("large", **SHORT_DECODER),
    "H": VideoMAEConfig.preset("huge", **SHORT_DECODER),
    "g": VideoMAEConfig.preset("giant", **SHORT_DECODER, patch_size=16),
}


def half_a_unit(printed: str) -> float:
    return 0.5 * 10.0 ** -len(printed.partition(".")[2]) * 1.0001


@pytest.mark.parametrize("line", TABLE.split("\n")[1:-1])
def test_the_closed_form_gives_the_published_networks_to_the_digits_of_the_table(line: str) -> None:
    size, variant, *printed = line.split()
    flops = pretraining_flops(CONFIGS[size], variant=variant)  # type: ignore[arg-type]
    counted = (flops.embed, flops.encoder, flops.decoder, flops.head, flops.forward, flops.step)
    for value, figure in zip(counted, printed, strict=True):
        assert value / 1e9 == pytest.approx(float(figure), abs=half_a_unit(figure))


@pytest.mark.parametrize(("variant", "step"), [("naive", 1567.6), ("exact", 1549.5), ("dual", 1406.1)])
def test_the_closed_form_gives_the_giant_network_at_patch_14(variant: str, step: float) -> None:
    config = VideoMAEConfig.preset("giant", decoder_intermediate_size=2048)
    assert pretraining_flops(config, variant=variant).step / 1e9 == pytest.approx(step, abs=0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "forward", "step"),
    [("S", 113.8, 339), ("B", 360.7, 1078), ("L", 1193.7, 3576), ("H", 2382, 7140), ("g", 3725.7, 11170)],
)
def test_the_closed_form_gives_dense_classification(size: str, forward: float, step: float) -> None:
    flops = classification_flops(CONFIGS[size].replace(num_labels=400))
    assert flops.forward / 1e9 == pytest.approx(forward, abs=0.05)
    assert flops.step / 1e9 == pytest.approx(step, abs=0.5)


def test_a_step_is_three_forward_passes_less_the_gradient_of_the_pixels() -> None:
    assert Flops(embed=1, encoder=10, decoder=100, head=1000).step == 2 * 1 + 3 * 1110


def test_queries_skipped_in_the_last_block_save_their_part_of_it_alone() -> None:
    whole, pruned = (block_flops(8, 32, tokens=10, queries=queries, depth=3) for queries in (None, 4))
    per_query = 2 * (2 * 8 * 8 + 2 * 8 * 32) + 4 * 10 * 8  # query, projection, MLP, both multiplications of attention
    assert whole - pruned == 6 * per_query


def counted_by_torch(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Return what torch counts of a forward and of a backward pass on one clip."""
    with FlopCounterMode(display=False) as counter:
        loss = model(**inputs).loss
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    return forward, counter.get_total_flops()


def tiny_inputs(config: VideoMAEConfig) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the inputs of one pre-training clip, ours and transformers'."""
    pixels, masks = random_batch(config, batch=1, device=torch.device("cpu"))
    hidden = ~membership(masks.visible, native_grid(config).num_tokens)
    ours = {"pixel_values": pixels, "visible_indices": masks.visible, "decoded_indices": masks.decoded}
    return ours, {"pixel_values": pixels, "bool_masked_pos": hidden}


def test_torch_counts_the_same_for_transformers_whose_eager_attention_it_can_see() -> None:
    config = SIZES["tiny"].replace(use_mean_pooling=False)
    theirs = transformers_model("VideoMAEForPreTraining", config, attention="eager")
    flops = pretraining_flops(config, variant="naive")
    assert counted_by_torch(theirs, tiny_inputs(config)[1]) == (flops.forward, flops.step - flops.forward)


def test_torch_counts_the_same_for_ours_but_for_attention_which_it_does_not_see() -> None:
    config = SIZES["tiny"].replace(use_mean_pooling=False)
    flops = pretraining_flops(config, variant="exact")
    visible, predicted = 4, 28  # of 2 * 16 tokens, 14 of 16 places hidden
    tokens = visible + predicted
    # Torch has no count for the fused attention of a CPU: query-key and probability-value products of two encoder
    # blocks, and of two decoder blocks of which the last has fewer queries. Twice that in the backward pass.
    attention = 4 * 64 * 2 * visible**2 + 4 * 32 * (tokens**2 + tokens * predicted)
    forward, backward = counted_by_torch(VideoMAEForPreTraining(config), tiny_inputs(config)[0])
    assert forward == flops.forward - attention
    assert backward == flops.step - flops.forward - 2 * attention


def test_torch_counts_the_same_for_our_classifier_where_it_returns_attentions() -> None:
    config = SIZES["tiny"].replace(num_labels=7)
    model = VideoMAEForVideoClassification(config)
    pixels, _ = random_batch(config, batch=1, device=torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        loss = model(pixels, output_attentions=True).logits.sum()
    flops = classification_flops(config)
    assert counter.get_total_flops() == flops.forward
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert counter.get_total_flops() == flops.step - flops.forward
