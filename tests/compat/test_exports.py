"""Programs that people export: traced, ONNX by both exporters. Their logits are the eager ones at any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tiny_models import inputs_for, make_model, random_mask, random_video
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, about exporters that it will take away


class Logits(nn.Module):
    """What people wrap a model in, since their exporter wants tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.model(pixel_values).logits
        return logits


@pytest.fixture
def classifier() -> VideoMAEForVideoClassification:
    return make_model(VideoMAEForVideoClassification, num_labels=3).eval()


@pytest.fixture
def wanted(classifier: VideoMAEForVideoClassification, three: Tensor) -> Tensor:
    with torch.no_grad():
        return classifier(three).logits


@pytest.fixture
def three(classifier: VideoMAEForVideoClassification) -> Tensor:
    return random_video(classifier.config, batch=3, seed=7)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_a_traced_model_computes_the_logits_at_other_batch_sizes(
    classifier: VideoMAEForVideoClassification, three: Tensor, wanted: Tensor, strict: bool, wrapped: bool
) -> None:
    module = Logits(classifier) if wrapped else classifier
    program = torch.jit.trace(module, random_video(classifier.config, batch=1), strict=strict)
    with torch.no_grad():
        output = program(three)
    assert isinstance(output, Tensor if wrapped else tuple if strict else dict)
    logits = output if wrapped else output[0] if strict else output["logits"]
    torch.testing.assert_close(logits, wanted, atol=1e-6, rtol=0)


def test_a_traced_pretraining_model_gives_loss_and_predictions_for_other_masks() -> None:
    model = make_model(VideoMAEForPreTraining).eval()
    program = torch.jit.trace(model, (random_video(model.config), random_mask()), check_trace=False)
    video, mask = random_video(model.config, seed=5), random_mask(seed=5)
    expected = model(video, mask)
    torch.testing.assert_close(program(video, mask), (expected.loss, expected.logits), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("dynamo", [False, True], ids=["by tracing", "by torch.export"])
def test_an_onnx_file_computes_the_logits_at_other_batch_sizes(
    classifier: VideoMAEForVideoClassification,
    three: Tensor,
    wanted: Tensor,
    tmp_path: Path,
    dynamo: bool,
    wrapped: bool,
) -> None:
    module = Logits(classifier) if wrapped else classifier
    batch: dict[str, Any] = {"dynamic_axes": {"video": {0: "batch"}, "logits": {0: "batch"}}, "opset_version": 17}
    if dynamo:
        batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "opset_version": 18}
    path = tmp_path / "model.onnx"
    sample = random_video(classifier.config, batch=2)
    torch.onnx.export(module, (sample,), path, input_names=["video"], output_names=["logits"], dynamo=dynamo, **batch)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"video": three.numpy()})
    np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_an_onnx_file_of_the_encoder_has_its_states(tmp_path: Path) -> None:
    model = make_model(VideoMAEModel).eval()
    inputs = inputs_for(model)
    path = tmp_path / "encoder.onnx"
    torch.onnx.export(model, (inputs["pixel_values"],), path, input_names=["video"], dynamo=True)
    (states,) = onnxruntime.InferenceSession(path).run(None, {"video": inputs["pixel_values"].numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(states, model(**inputs).last_hidden_state.numpy(), atol=1e-5, rtol=0)
