import itertools

import pytest
import torch
from torch import Tensor, nn

from tiny_models import gradients, make_model, random_mask, random_video, tiny_config
from videomae.engine.precision import autocast
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import split_by_mask
from videomae.train import decoding
from videomae.train.decoding import clips_decoded_at_once, decode_in_parts


def masks() -> tuple[Tensor, Tensor]:
    """Return visible and decoded tokens of two clips; the second decodes 12 that it has seen, 4 that it has not."""
    visible, hidden = split_by_mask(random_mask(num_hidden=16))
    return visible, torch.stack((hidden[0], torch.cat((visible[1, :12], hidden[1, :4]))))


def results(model: VideoMAEForPreTraining, at_once: int | None, decoded: Tensor | None = None) -> list[Tensor]:
    """Return loss, logits and all gradients."""
    model.zero_grad()
    model.clips_decoded_at_once = at_once
    visible, some = masks()
    options = {"visible_indices": visible, "decoded_indices": some if decoded is None else decoded}
    output = model(random_video(model.config).to(model.mask_token.dtype), **options)
    output.loss.backward()
    return [output.loss.detach(), output.logits.detach(), *gradients(model).values()]


def test_clips_that_are_decoded_one_by_one_give_the_same_loss_and_gradients() -> None:
    model = make_model(VideoMAEForPreTraining).double().train()
    for one, other in zip(results(model, 1), results(model, None), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)


def test_a_clip_that_does_not_count_changes_nothing() -> None:
    model = make_model(VideoMAEForPreTraining).double().train()
    visible, decoded = masks()
    decoded[1] = visible[1]  # what a black clip in the place of a video that cannot be read has
    found, expected = results(model, 1, decoded), results(model, None, decoded)
    assert found[0].isfinite()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)


def test_gradients_in_bfloat16_are_as_precise_as_those_of_all_clips_together() -> None:
    model = make_model(VideoMAEForPreTraining).train()
    exact = results(model, None)[2:]
    with autocast(torch.device("cpu"), torch.bfloat16):
        parted, whole = results(model, 1)[2:], results(model, None)[2:]
    for one, other, true in zip(parted, whole, exact, strict=True):
        assert (one - true).norm() < 1.2 * (other - true).norm() + 0.01 * true.norm()


def test_who_listens_to_the_decoder_sees_all_clips_together() -> None:
    model = make_model(VideoMAEForPreTraining).train()
    seen = []
    model.decoder.norm.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    results(model, 1)
    assert seen == [2]


def test_without_gradients_clips_are_decoded_together() -> None:
    model = make_model(VideoMAEForPreTraining)
    model.clips_decoded_at_once = 1
    visible, decoded = masks()
    with torch.no_grad():
        output = model(random_video(model.config), visible_indices=visible, decoded_indices=decoded)
    assert output.loss.isfinite()


def test_the_decoder_keeps_one_clip_for_the_backward_pass() -> None:
    model = make_model(VideoMAEForPreTraining).train()
    kept = {at_once: kept_after_forward(model, at_once) for at_once in (1, None)}
    assert kept[1] < 0.6 * kept[None]


def kept_after_forward(model: nn.Module, at_once: int | None) -> int:
    """Return the bytes that autograd still keeps when the forward pass is over."""
    model.clips_decoded_at_once = at_once  # type: ignore[assignment]
    visible, decoded = masks()
    storages: dict[int, int] = {}
    kept = []
    loss = model(random_video(model.config), visible_indices=visible, decoded_indices=decoded).loss
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes.extend(before for before, _ in node.next_functions)
        kept.extend(getattr(node, name) for name in dir(node) if name.startswith("_saved"))
    for tensor in itertools.chain.from_iterable(one if isinstance(one, tuple | list) else [one] for one in kept):
        if isinstance(tensor, Tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"])
def test_what_is_drawn_for_a_batch_keeps_it_together(field: str) -> None:
    assert clips_decoded_at_once(tiny_config(**{field: 0.1})) is None


def test_small_models_decode_many_clips_at_once_and_those_of_a_gpu_all(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    assert (clips_decoded_at_once(config) or 0) > 100
    monkeypatch.setattr(decoding, "VALUES", 1)
    assert clips_decoded_at_once(config) == 1
    for device, at_once in (("cpu", 1), ("meta", None)):
        with torch.device(device):
            model = VideoMAEForPreTraining(config)
        decode_in_parts(model)
        assert model.clips_decoded_at_once == at_once
