"""Classification: pooling, the head, the warning about token 0, problem types."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_models import inputs_for, make_model, random_video, randomize, tiny_config
from tolerances import assert_near, model_terms
from videomae.model.classification import PROBLEM_TYPES, VideoMAEForVideoClassification, problem_type

TOKEN_0_WARNING = (
    "use_mean_pooling is False and the model has no CLS token: the classifier sees token 0 alone, the top-left "
    "patch of the first frames; set use_mean_pooling=True to classify from the whole clip"
)


def test_mean_pooling_classifies_the_normed_mean_of_all_tokens() -> None:
    model = make_model(VideoMAEForVideoClassification)
    video = random_video(model.config)
    states = model.videomae(video).last_hidden_state
    expected = model.classifier(model.fc_norm(states.mean(1)))
    assert_near(model(video).logits, expected, terms=model_terms(model, tokens=32))
    assert model.fc_norm.eps == 1e-5


def test_without_mean_pooling_token_0_is_classified_and_the_reader_is_warned() -> None:
    with pytest.warns(UserWarning, match="token 0 alone") as caught:
        model = randomize(VideoMAEForVideoClassification(tiny_config(use_mean_pooling=False)))
    assert [str(one.message) for one in caught] == [TOKEN_0_WARNING]
    assert caught[0].filename == __file__
    assert model.fc_norm is None
    video = random_video(model.config)
    states = model.videomae(video).last_hidden_state
    assert_near(model(video).logits, model.classifier(states[:, 0]), terms=model_terms(model, tokens=32))


@pytest.mark.parametrize("settings", [{}, {"use_mean_pooling": False, "use_cls_token": True}])
def test_nobody_is_warned_without_reason(settings: dict[str, bool]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoMAEForVideoClassification(tiny_config(**settings))


def test_every_token_matters_with_mean_pooling_and_none_but_one_reaches_the_head_without() -> None:
    tokens = torch.randn(2, 32, 24)
    changed = tokens.clone()
    changed[:, 5] += torch.randn(24)
    pooled = make_model(VideoMAEForVideoClassification)
    with pytest.warns(UserWarning, match="token 0 alone"):
        single = make_model(VideoMAEForVideoClassification, use_mean_pooling=False)
    assert (pooled.features(changed) - pooled.features(tokens)).abs().max() > 1e-3
    assert torch.equal(single.features(changed), single.features(tokens))


def test_dropout_before_the_head_works_in_training_alone() -> None:
    model = make_model(VideoMAEForVideoClassification, classifier_dropout=0.5)
    features = torch.randn(2, 24)
    assert not torch.equal(model.classify(features), model.classify(features))
    model.eval()
    assert torch.equal(model.classify(features), model.classifier(features))


def test_the_head_starts_small_and_without_bias() -> None:
    model = VideoMAEForVideoClassification(tiny_config(hidden_size=240, num_labels=50, initializer_range=0.02))
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.count_nonzero(model.classifier.bias) == 0
    inner = model.videomae.encoder.layer[0].intermediate.dense
    assert inner.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.count_nonzero(inner.bias) == 0


@pytest.mark.parametrize(
    ("num_labels", "labels", "expected"),
    [
        (5, torch.tensor([1, 4]), lambda logits, labels: F.cross_entropy(logits, labels)),
        (5, torch.eye(5)[:2], lambda logits, labels: F.binary_cross_entropy_with_logits(logits, labels)),
        (1, torch.tensor([0.5, 2.0]), lambda logits, labels: (logits[:, 0] - labels).square().mean()),
    ],
    ids=["one label", "several labels", "regression"],
)
def test_the_problem_type_is_judged_from_the_labels(num_labels: int, labels: Tensor, expected: object) -> None:
    model = make_model(VideoMAEForVideoClassification, num_labels=num_labels)
    output = model(random_video(model.config), labels)
    torch.testing.assert_close(output.loss, expected(output.logits, labels))
    output.loss.backward()


@pytest.mark.parametrize("configured", PROBLEM_TYPES)
def test_a_configured_problem_type_wins(configured: str) -> None:
    assert problem_type(configured, 5, torch.tensor([1, 2])) == configured


def test_an_unknown_problem_type_is_refused() -> None:
    model = make_model(VideoMAEForVideoClassification, problem_type="ranking")
    message = "config.problem_type is 'ranking': choose one of regression, single_label_classification, multi_label"
    with pytest.raises(ValueError, match=message):
        model(**inputs_for(model))


def test_without_labels_there_is_no_loss() -> None:
    model = make_model(VideoMAEForVideoClassification)
    output = model(random_video(model.config))
    assert output.loss is None
    assert tuple(output) == ("logits",)
    assert isinstance(model(random_video(model.config), return_dict=False), tuple)


@pytest.mark.parametrize(
    ("num_labels", "labels"),
    [(5, torch.tensor([1, 4])), (5, torch.eye(5)[:2]), (1, torch.tensor([0.5, 2.0]))],
    ids=["one label", "several labels", "regression"],
)
def test_a_bfloat16_model_and_autocast_have_a_loss_for_every_problem_type(num_labels: int, labels: Tensor) -> None:
    model = make_model(VideoMAEForVideoClassification, num_labels=num_labels)
    video = random_video(model.config)
    expected = model(video, labels).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(video, labels).loss
    half = make_model(VideoMAEForVideoClassification, num_labels=num_labels).to(torch.bfloat16)(video, labels).loss
    for loss in (cast, half):
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=0.05)


def test_training_learns_two_clips() -> None:
    model = VideoMAEForVideoClassification(tiny_config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    inputs = inputs_for(model)
    for _ in range(40):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.eval()(**inputs).logits.argmax(-1).tolist() == inputs["labels"].tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_step_never_waits_for_the_device() -> None:
    model = make_model(VideoMAEForVideoClassification, drop_path_rate=0.2).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    inputs = {name: one.cuda() for name, one in inputs_for(model).items()}
    model(**inputs).loss.backward()
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)
