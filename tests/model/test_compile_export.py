"""Compiled and exported: one graph for each model, the eager numbers, no new graph for new masks, no silent misuse.

`aot_eager` traces and differentiates as the default backend does, without its minutes of code generation; one
test for each model runs the default backend.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny_models import (
    ALL_CLASSES,
    gradients,
    inputs_for,
    make_model,
    random_mask,
    random_video,
    relative_error,
    scalar,
)
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.patches import complement, equal_count, split_by_mask

MASKED = (VideoMAEModel, VideoMAEForPreTraining)
SMALLEST = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1}
CHANGED_COUNT = "a mask hides another number of tokens than the one this model was compiled with, or unequal numbers"


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def make_inputs(cls: type[VideoMAEPreTrainedModel], model: Any, kind: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Return inputs with what is hidden spelled as a mask, as indices, or as two masks or indices."""
    inputs = inputs_for(model, seed=seed)
    if kind == "plain" or cls not in MASKED:
        return inputs
    hidden, undecoded = random_mask(seed=seed), random_mask(num_hidden=20, seed=seed + 100)
    visible = {"visible_indices": split_by_mask(hidden)[0]}
    decoded = {"decoded_indices": split_by_mask(undecoded)[0]}
    masks = {
        "mask": {"bool_masked_pos": hidden},
        "indices": visible,
        "two masks": {"bool_masked_pos": hidden, "decode_masked_pos": undecoded},
        "two indices": {**visible, **decoded},
    }
    return {"pixel_values": inputs["pixel_values"], **masks[kind]}


CASES = [
    *((cls, "plain") for cls in ALL_CLASSES if cls is not VideoMAEForPreTraining),
    *((cls, kind) for cls in MASKED for kind in ("mask", "indices")),
    *((VideoMAEForPreTraining, kind) for kind in ("two masks", "two indices")),
]
CASE_NAMES = [f"{cls.__name__} {kind}" for cls, kind in CASES]


def assert_same(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Compare two outputs field by field."""
    assert type(actual) is type(expected)
    assert actual.keys() == expected.keys()
    for name in expected.keys():  # noqa: SIM118
        assert (actual[name] - expected[name]).abs().max().item() < tolerance, name


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "kind"), CASES, ids=CASE_NAMES)
def test_a_training_step_compiles_to_one_graph_that_new_masks_do_not_change(
    cls: type[VideoMAEPreTrainedModel], kind: str
) -> None:
    model = make_model(cls, **SMALLEST)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        inputs = make_inputs(cls, model, kind, seed=seed)
        with torch.compiler.set_stance("fail_on_recompile" if seed else "default"):
            output = compiled(**inputs)
            scalar(output).backward()
        expected = twin(**inputs)
        scalar(expected).backward()
        assert_same(output, expected)
    wanted, actual = gradients(twin), gradients(model)
    assert max(relative_error(actual[name], wanted[name]) for name in wanted) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "kind"), CASES, ids=CASE_NAMES)
def test_evaluation_compiles_to_one_graph(cls: type[VideoMAEPreTrainedModel], kind: str) -> None:
    model = make_model(cls, **SMALLEST).eval()
    inputs = make_inputs(cls, model, kind)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_same(compiled(**inputs), model(**inputs))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"use_cls_token": True, "init_values": 0.1},
        {"drop_path_rate": 0.2, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
        {"output_attentions": True, "output_hidden_states": True},
        {"qv_bias": False, "norm_pix_loss": False, "hidden_act": "gelu_pytorch_tanh"},
        {"num_frames": 8},
    ],
    ids=["cls token and layer scale", "dropouts", "states and attentions", "other switches", "other grid"],
)
def test_every_switch_of_the_network_compiles_to_one_graph(settings: dict[str, Any]) -> None:
    model = make_model(VideoMAEForPreTraining, **{**SMALLEST, **settings})
    inputs = make_inputs(VideoMAEForPreTraining, model, "indices")
    if "num_frames" in settings:
        inputs["pixel_values"] = inputs["pixel_values"][:, :6]  # the table of this grid must be made inside the graph
        inputs["visible_indices"] = inputs["visible_indices"] // 2
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output = compiled(**inputs)
    output.loss.backward()
    assert len(gradients(model)) > 20
    if "drop_path_rate" not in settings:
        expected = model(**inputs)
        torch.testing.assert_close(output.to_tuple(), expected.to_tuple(), atol=1e-5, rtol=1e-5)
    else:
        assert not torch.equal(compiled(**inputs).logits, compiled(**inputs).logits)


@pytest.mark.slow
def test_gradient_checkpointing_compiles_to_one_graph() -> None:
    model = make_model(VideoMAEForPreTraining, **SMALLEST)
    inputs = make_inputs(VideoMAEForPreTraining, model, "mask")
    scalar(model(**inputs)).backward()
    expected = gradients(model)
    model.zero_grad()
    model.gradient_checkpointing_enable()
    scalar(torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs)).backward()
    actual = gradients(model)
    assert max(relative_error(actual[name], expected[name]) for name in expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_a_bfloat16_step_compiles_to_one_graph(recompute: bool) -> None:
    model = make_model(VideoMAEForPreTraining, **SMALLEST)
    if recompute:
        model.gradient_checkpointing_enable()
    inputs = make_inputs(VideoMAEForPreTraining, model, "indices")
    results = []
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = step(**inputs)
        output.loss.backward()
        results.append((output, gradients(model)))
    (expected, wanted), (actual, ours) = results
    assert actual.logits.dtype == torch.bfloat16
    assert relative_error(actual.logits.float(), expected.logits.float()) < 0.01
    assert max(relative_error(ours[name], wanted[name]) for name in wanted) < 0.02


@pytest.mark.slow
def test_the_default_backend_gives_the_eager_training_step() -> None:
    model = make_model(VideoMAEForPreTraining, **SMALLEST)
    inputs = make_inputs(VideoMAEForPreTraining, model, "mask")
    expected = model(**inputs)
    expected.loss.backward()
    wanted = gradients(model)
    model.zero_grad()
    output = torch.compile(model, fullgraph=True)(**inputs)
    output.loss.backward()
    assert_same(output, expected)
    actual = gradients(model)
    assert max(relative_error(actual[name], wanted[name]) for name in wanted) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForVideoClassification])
def test_the_default_backend_gives_the_eager_output(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls, **SMALLEST).eval()
    inputs = make_inputs(cls, model, "plain")
    with torch.no_grad():
        assert_same(torch.compile(model, fullgraph=True)(**inputs), model(**inputs))


# A mask in a compiled graph: its count is a constant, and a mask of another count must not pass.


@pytest.mark.slow
@pytest.mark.parametrize("cls", MASKED)
def test_a_compiled_model_refuses_a_mask_of_another_count(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls, **SMALLEST).eval()
    video = random_video(model.config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    # 23 and 25 hidden of 32: the right total over the batch, and so the right shapes.
    unequal = torch.stack((random_mask(num_hidden=23)[0], random_mask(num_hidden=25)[1]))
    with torch.no_grad():
        assert_same(compiled(video, random_mask()), model(video, random_mask()))
        for wrong in (random_mask(num_hidden=20), random_mask(num_hidden=28), unequal):
            with pytest.raises(RuntimeError, match=f"{CHANGED_COUNT}: pass visible_indices and decoded_indices"):
                compiled(video, wrong)
        assert_same(compiled(video, random_mask(seed=5)), model(video, random_mask(seed=5)))


@pytest.mark.slow
def test_indices_of_another_count_make_a_new_graph() -> None:
    model = make_model(VideoMAEForPreTraining, **SMALLEST)
    video = random_video(model.config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for num_hidden in (24, 20):
        visible, _ = split_by_mask(random_mask(num_hidden=num_hidden))
        assert_same(compiled(video, visible_indices=visible), model(video, visible_indices=visible))


def test_the_count_is_marked_as_torch_marks_constants() -> None:
    def marked() -> None:
        """Stand for any function."""

    torch.compiler.assume_constant_result(marked)
    assert vars(marked).items() <= vars(equal_count).items()
    assert vars(marked)


# Export.


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("cls", "kind"), CASES, ids=CASE_NAMES)
def test_an_exported_program_gives_the_eager_output(
    cls: type[VideoMAEPreTrainedModel], kind: str, training: bool
) -> None:
    model = make_model(cls, **SMALLEST).train(training)
    program = torch.export.export(model, (), make_inputs(cls, model, kind)).module()
    for seed in range(2):
        inputs = make_inputs(cls, model, kind, seed=seed)
        assert_same(program(**inputs), model(**inputs))


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("cls", MASKED)
def test_an_exported_program_takes_masks_of_any_count_but_not_unequal_ones(
    cls: type[VideoMAEPreTrainedModel], strict: bool
) -> None:
    model = make_model(cls, **SMALLEST).eval()
    video = random_video(model.config)
    program = torch.export.export(model, (video, random_mask()), strict=strict).module()
    for num_hidden in (1, 20, 24, 31):
        mask = random_mask(num_hidden=num_hidden)
        assert_same(program(video, mask), model(video, mask))
    unequal = torch.stack((random_mask(num_hidden=23)[0], random_mask(num_hidden=25)[1]))
    with pytest.raises(RuntimeError, match="or unequal numbers"):
        program(video, unequal)
    with pytest.raises(RuntimeError):
        program(video, random_mask(num_hidden=32))


@pytest.mark.slow
@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_an_exported_program_takes_any_batch_size(cls: type[VideoMAEPreTrainedModel]) -> None:
    model = make_model(cls, **SMALLEST).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    inputs = make_inputs(cls, model, "indices")
    inputs.pop("labels", None)
    program = torch.export.export(model, (), inputs, dynamic_shapes={name: {0: batch} for name in inputs}).module()
    for size in (1, 5):
        many = {name: one[:1].repeat(size, *[1] * (one.dim() - 1)) for name, one in inputs.items()}
        many["pixel_values"] = torch.randn_like(many["pixel_values"])
        assert_same(program(**many), model(**many))


@pytest.mark.slow
def test_an_exported_program_is_saved_and_read_back(tmp_path: Any) -> None:
    model = make_model(VideoMAEForPreTraining, **SMALLEST).eval()
    inputs = make_inputs(VideoMAEForPreTraining, model, "indices")
    torch.export.save(torch.export.export(model, (), inputs), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert_same(program(**inputs), model(**inputs))


def test_shapes_of_index_helpers_depend_on_shapes_alone() -> None:
    with torch.device("meta"):
        indices = torch.empty(2, 8, dtype=torch.int64)
        assert complement(indices, 32).shape == (2, 24)
