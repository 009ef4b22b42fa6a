import pytest
import torch
from torch import nn

from tiny_models import make_model, random_video
from videomae.engine.precision import autocast
from videomae.errors import ConfigError
from videomae.inference import int8
from videomae.inference.backends import in_precision
from videomae.inference.int8 import Int8Linear, in_int8, multiplies_exactly
from videomae.model.classification import VideoMAEForVideoClassification

CPU = torch.device("cpu")
exactly = pytest.mark.skipif(not multiplies_exactly(), reason="this processor's products of 8-bit integers overflow")


def test_a_processor_whose_products_overflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "multiplies_exactly", lambda: False)
    model = make_model(VideoMAEForVideoClassification, num_labels=3)
    with pytest.raises(ConfigError, match=r"in 16 bits, which overflow: it has no VNNI .* use precision fp32"):
        in_int8(model)


@exactly
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_int8_layer_is_the_layer_but_for_the_rounding(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48, bias=bias)
    tokens = torch.randn(2, 150, 64)  # more rows than are brought back at once
    tokens[0, 3] *= 1000.0  # each token has a scale of its own
    expected = linear(tokens)
    with autocast(CPU, dtype):
        found = Int8Linear(linear)(tokens)
    assert (found.dtype, found.shape) == (dtype, expected.shape)
    errors = (found.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert 0 < errors.max() < 0.03


@exactly
def test_numbers_that_8_bits_hold_are_multiplied_exactly() -> None:
    linear = nn.Linear(32, 8)
    with torch.no_grad():
        linear.weight.copy_(torch.randint(-126, 127, (8, 32)))
        linear.weight[:, 0] = 127.0
    tokens = torch.randint(-126, 127, (5, 32)).float()
    tokens[:, 0] = 127.0
    torch.testing.assert_close(Int8Linear(linear)(tokens), linear(tokens))


def test_a_token_of_zeros_gives_the_bias() -> None:
    linear = nn.Linear(32, 8)
    torch.testing.assert_close(Int8Linear(linear)(torch.zeros(2, 32)), linear.bias.detach().expand(2, 8))


@exactly
def test_a_model_in_int8_is_a_copy_whose_blocks_alone_are_rounded() -> None:
    model = make_model(VideoMAEForVideoClassification, hidden_size=32, num_attention_heads=2).eval()
    video = random_video(model.config)
    expected = model(video).logits
    rounded = in_int8(model)
    found = rounded(video).logits
    assert 0 < (found - expected).norm() / expected.norm() < 0.05
    assert torch.equal(model(video).logits, expected)
    layers = [one for one in rounded.modules() if isinstance(one, Int8Linear)]
    assert len(layers) == 6 * len(model.videomae.encoder.layer)
    assert rounded.classifier.weight is model.classifier.weight
    assert type(rounded.classifier) is nn.Linear


def test_int8_is_refused_where_it_does_not_compute() -> None:
    with torch.device("meta"):
        model = make_model(VideoMAEForVideoClassification)
    with pytest.raises(
        ConfigError, match=r"precision is 'int8', which is for CPUs, and the model is on meta: use bf16"
    ):
        in_precision(model, "int8")


def test_other_precisions_leave_the_model_as_it_is() -> None:
    model = make_model(VideoMAEForVideoClassification)
    assert in_precision(model, "fp32") == (model, torch.float32)
    assert in_precision(model, "bf16") == (model, torch.bfloat16)
