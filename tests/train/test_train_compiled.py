import copy
import functools

import pytest
import torch

from tiny_models import make_model, random_mask, random_video
from videomae.engine import compiled as compilation
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.train.compiled import compile_parts


@pytest.fixture(autouse=True)
def _traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    compilation.compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def test_compiled_parts_give_the_loss_and_the_gradients_of_the_model_as_written() -> None:
    plain = make_model(VideoMAEForPreTraining)
    parts = copy.deepcopy(plain)
    # Encoder, decoder and the embedding.
    blocks = len(parts.videomae.encoder.layer) + len(parts.decoder.decoder_layers)
    assert compile_parts(parts) == blocks + 1
    video, hidden = random_video(plain.config), random_mask()
    losses = [one(video, hidden).loss for one in (plain, parts)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for (name, one), other in zip(plain.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    assert list(plain.state_dict()) == list(parts.state_dict())


def test_a_compiled_model_can_be_copied_and_the_copy_has_its_own_weights() -> None:
    model = make_model(VideoMAEForPreTraining)
    compile_parts(model)
    video, hidden = random_video(model.config), random_mask()
    before = model(video, hidden).loss
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(model(video, hidden).loss, before)
    assert not torch.equal(other(video, hidden).loss, before)


def test_a_classifier_has_its_blocks_and_its_embedding_compiled() -> None:
    model = make_model(VideoMAEForVideoClassification).eval()
    video = random_video(model.config)
    expected = model(video).logits
    assert compile_parts(model) == len(model.videomae.encoder.layer) + 1
    torch.testing.assert_close(model(video).logits, expected)
