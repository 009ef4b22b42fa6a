"""Blocks that OpenVINO computes give what torch's give, in every precision that it has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_models import make_model, random_video
from videomae.engine.precision import autocast, compute_dtype
from videomae.errors import ConfigError
from videomae.inference import openvino_blocks
from videomae.inference.backends import in_precision
from videomae.inference.int8 import multiplies_exactly
from videomae.inference.openvino_blocks import OpenVinoBlocks, in_openvino, input_ranges
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.layers import VideoMAELayer

pytest.importorskip("openvino")
if "VIDEOMAE_TEST_OPENVINO" not in os.environ:
    pytest.skip("OpenVINO's tests have a process of their own: make test-openvino", allow_module_level=True)

CPU = torch.device("cpu")
exactly = pytest.mark.skipif(not multiplies_exactly(), reason="this processor's products of 8-bit integers overflow")


def classifier(**settings: Any) -> VideoMAEForVideoClassification:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 3}
    model: VideoMAEForVideoClassification = make_model(VideoMAEForVideoClassification, **{**sizes, **settings})
    return model.eval()


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"init_values": 0.1},
        {"qv_bias": False},
        {"use_cls_token": True},
        {"use_mean_pooling": False, "use_cls_token": True},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"hidden_act": "silu"},
        {"layer_norm_eps": 0.1},
    ],
    ids=str,
)
@torch.inference_mode()
def test_in_float32_the_logits_are_those_of_torch_whatever_a_block_has(settings: dict[str, Any]) -> None:
    model = classifier(**settings)
    clips = random_video(model.config)
    found, dtype = in_precision(model, "fp32", "openvino")
    assert dtype == torch.float32
    assert relative(found(clips).logits, model(clips).logits) < 1e-5


@torch.inference_mode()
def test_any_number_of_clips_and_of_tokens_is_computed_and_few_sizes_stay_compiled() -> None:
    model = classifier()
    found, _ = in_precision(model, "fp32", "openvino")
    for batch, frames in ((1, 2), (3, 4), (2, 8), (1, 6), (1, 10), (2, 2)):
        clips = random_video(model.config, batch=batch)[:, :1].repeat(1, frames, 1, 1, 1)
        assert relative(found(clips).logits, model(clips).logits) < 1e-5
    (blocks,) = found.videomae.encoder.layer
    assert list(blocks._requests) == [64, 48, 80, 16]


@torch.inference_mode()
def test_a_clip_has_the_same_values_whatever_clips_are_beside_it() -> None:
    model = classifier()
    clips = random_video(model.config, batch=3)
    found, _ = in_precision(model, "fp32", "openvino")
    states = found.videomae(clips).last_hidden_state
    for number in range(3):
        assert torch.equal(found.videomae(clips[number : number + 1]).last_hidden_state[0], states[number])


@torch.inference_mode()
def test_an_encoder_gives_the_same_states_and_no_attentions() -> None:
    config = classifier().config
    torch.manual_seed(0)
    model = VideoMAEModel(config).eval()
    clips = random_video(config)
    found, _ = in_precision(model, "fp32", "openvino")
    assert relative(found(clips).last_hidden_state, model(clips).last_hidden_state) < 1e-5
    with pytest.raises(ConfigError, match=r"attention probabilities .* backend openvino never has them, use torch"):
        found(clips, output_attentions=True)


@torch.inference_mode()
def test_in_bfloat16_the_logits_are_as_near_as_those_of_torch() -> None:
    if compute_dtype("auto", CPU) != torch.bfloat16:
        pytest.skip("this processor has no bfloat16")
    model = classifier()
    clips = random_video(model.config, batch=4)
    found, dtype = in_precision(model, "auto", "openvino")
    exact = model(clips).logits
    with autocast(CPU, dtype):
        by_openvino, by_torch = relative(found(clips).logits, exact), relative(model(clips).logits, exact)
    assert 1e-5 < by_openvino < max(2 * by_torch, 0.01)


@exactly
@torch.inference_mode()
def test_in_8_bit_integers_the_logits_are_those_of_float32_but_for_the_rounding() -> None:
    model = classifier()
    clips = random_video(model.config, batch=8)
    found = in_openvino(model, torch.float32, clips.split(1))
    assert 1e-4 < relative(found(clips).logits, model(clips).logits) < 0.06


@exactly
@torch.inference_mode()
def test_a_few_large_values_do_not_cost_the_others_their_integers() -> None:
    # The same function as before: what a norm multiplies by, the weights behind it divide by.
    model = classifier()
    for layer in model.videomae.encoder.layer:
        attention = layer.attention.attention
        behind = [
            (layer.layernorm_before, (attention.query, attention.key, attention.value)),
            (layer.layernorm_after, (layer.intermediate.dense,)),
        ]
        for norm, linears in behind:
            for parameter in (norm.weight, norm.bias):
                parameter.data[::16] *= 200.0
            for linear in linears:
                linear.weight.data[:, ::16] /= 200.0
    clips = random_video(model.config, batch=8)
    found = in_openvino(model, torch.float32, clips.split(1))
    assert relative(found(clips).logits, model(clips).logits) < 0.06


@exactly
@torch.inference_mode()
def test_values_beyond_those_of_the_clips_that_gave_the_ranges_are_cut_off() -> None:
    model = classifier()
    clips = random_video(model.config, batch=8)
    narrow = in_openvino(model, torch.float32, [clips[:1] * 1e-3])
    wide = in_openvino(model, torch.float32, clips.split(1))
    exact = model(clips).logits
    assert relative(narrow(clips).logits, exact) > 2 * relative(wide(clips).logits, exact)


@torch.inference_mode()
def test_ranges_are_those_of_all_clips_together() -> None:
    model = classifier()
    clips = random_video(model.config, batch=4)
    apart, together = input_ranges(model, clips.split(1)), input_ranges(model, [clips])
    assert len(apart) == 3
    for one, other in zip(apart, together, strict=True):
        for name in one._fields:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)
    assert len(apart[0].output.low) == model.config.intermediate_size


def test_the_model_is_left_as_it_was_and_all_but_the_blocks_is_shared() -> None:
    model = classifier()
    found = in_openvino(model, torch.float32)
    assert all(type(one) is VideoMAELayer for one in model.videomae.encoder.layer)
    (blocks,) = found.videomae.encoder.layer
    assert isinstance(blocks, OpenVinoBlocks)
    assert found.classifier.weight is model.classifier.weight
    assert sum(one.numel() for one in found.parameters()) < sum(one.numel() for one in model.parameters()) / 2


def test_a_block_that_was_replaced_or_is_listened_to_is_refused() -> None:
    model = classifier()
    handle = model.videomae.encoder.layer[1].register_forward_hook(lambda *_: None)
    with pytest.raises(ConfigError, match=r"backend is 'openvino', and block 1 of the model .* use the backend"):
        in_openvino(model, torch.float32)
    handle.remove()
    model.videomae.encoder.layer[2].output.dense = nn.Sequential(model.videomae.encoder.layer[2].output.dense)
    with pytest.raises(ConfigError, match=r"block 2 of the model has been replaced, adapted or quantized"):
        in_openvino(model, torch.float32)
    model = classifier()
    model.videomae.encoder.layer[0].intermediate.intermediate_act_fn = nn.Tanh()
    with pytest.raises(ConfigError, match=r"block 0 of the model has been replaced, adapted or quantized"):
        in_openvino(model, torch.float32)


def test_a_model_elsewhere_than_on_a_cpu_is_refused() -> None:
    with torch.device("meta"):
        model = make_model(VideoMAEForVideoClassification)
    with pytest.raises(
        ConfigError, match=r"'openvino', which is for CPUs, and the model is on meta: use torch there"
    ):
        in_openvino(model, torch.float32)


def test_without_openvino_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"pip install 'videomae\[openvino\]', or use the backend torch"):
        in_openvino(classifier(), torch.float32)


def test_without_exact_products_8_bit_integers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ConfigError("in 16 bits")

    monkeypatch.setattr(openvino_blocks, "check_multiplies_exactly", refuse)
    with pytest.raises(ConfigError, match="in 16 bits"):
        in_openvino(classifier(), torch.float32, [])


def test_an_unknown_backend_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"backend is 'tvm'; the known ones are torch, openvino: use one of them"):
        in_precision(classifier(), "fp32", "tvm")  # type: ignore[arg-type]


def test_nothing_of_openvino_is_imported_by_those_who_do_not_use_it(tmp_path: Path) -> None:
    code = "import sys, videomae, videomae.inference.predictor; sys.exit('openvino' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
