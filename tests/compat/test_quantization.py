"""int8 quantizers take these models as any with `nn.Linear` layers, and err no more than with transformers'.

A quantized model is compared with transformers' own, quantized in the same way from the same weights: equal modules
are replaced, and the error is the same.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tiny_models import make_model, random_video
from videomae.model.classification import VideoMAEForVideoClassification

transformers = pytest.importorskip("transformers")


def weight_only(model: nn.Module) -> nn.Module:
    """Quantize as torchao does weights alone."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())
    return model


def dynamic(model: nn.Module) -> nn.Module:
    """Quantize as torchao does weights, and activations as they come."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def eager_dynamic(model: nn.Module) -> nn.Module:
    """Quantize as `torch.ao` does weights, and activations as they come."""
    quantized: nn.Module = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return quantized


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantize", [weight_only, dynamic, eager_dynamic])
def test_a_quantized_classifier_errs_like_the_same_one_of_transformers(
    quantize: Callable[[nn.Module], nn.Module],
) -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 2}
    model = make_model(VideoMAEForVideoClassification, num_labels=5, **sizes).eval()
    theirs = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(**{**model.config.to_dict(), "attn_implementation": "sdpa"})
    ).eval()
    theirs.load_state_dict(model.state_dict())
    clips = random_video(model.config, batch=8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = model(clips).logits
        torch.testing.assert_close(theirs(clips).logits, exact, atol=1e-5, rtol=1e-4)
        ours = quantize(copy.deepcopy(model))(clips).logits
        other = quantize(theirs)(clips).logits
    error, upstream = (float((one - exact).norm() / exact.norm()) for one in (ours, other))
    assert 0.0 < error < 0.1
    assert error == pytest.approx(upstream, rel=0.05)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantize", [weight_only, eager_dynamic])
def test_every_linear_layer_is_quantized(quantize: Callable[[nn.Module], nn.Module]) -> None:
    model = make_model(VideoMAEForVideoClassification, num_labels=5).eval()
    count = sum(isinstance(one, nn.Linear) for one in model.modules())
    quantized = quantize(copy.deepcopy(model))
    plain = [one for one in quantized.modules() if type(one) is nn.Linear and type(one.weight) is nn.Parameter]
    assert not plain
    assert count == 6 * model.config.num_hidden_layers + 1
