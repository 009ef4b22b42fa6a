"""Subcommands and their options, as they are frozen: a change here is one of the interface."""

from __future__ import annotations

import pytest

from videomae.cli import SUBCOMMANDS, main

RECIPE_PARTS = {
    "pretrain": "augment clip data decoder_init init loop mask model monitor optim parallel schedule".split(),
    "finetune": "augment clip data evaluation head init loop lora mix model optim".split(),
}
RECIPE_PARTS["finetune"] += ["parallel", "schedule", "speed", "validation"]
OPTIONS = {
    "demo": "data out overwrite seed".split(),
    "pretrain": "dry-run out overwrite plan resume resume-or-start".split(),
    "finetune": "dry-run out overwrite plan resume resume-or-start".split(),
    "evaluate": "backend batch_size clip device out precision protocol report speed split views workers".split(),
    "predict": "backend clip decoder device json num_views precision speed top_k".split(),
    "probe": "attentive cache clip device folds model out overwrite seed split workers".split(),
    "features": "backend batch_size clip decoder device engine min_cosine model out pool precision resume shard step "
    "step_frames window workers".split(),
    "search": "device end exact json like model out start top_k".split(),
    "dedupe": "json out resume workers".split(),
    "explain": "device label methods out video_out".split(),
    "reconstruct": "device mask model out seed".split(),
}


def options_of(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    arguments = (word.strip("[],") for word in capsys.readouterr().out.split())
    names = {word.removeprefix("--").split("=")[0].split(".")[0] for word in arguments if word.startswith("--")}
    return names - {"help", "config", "print_config[", "print_config"}


def test_subcommands_are_the_frozen_list() -> None:
    assert sorted(SUBCOMMANDS) == sorted(
        [*OPTIONS, "anomaly", "data", "recipes", "runs", "stream", "timeline", "weights"]
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_the_frozen_list(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert options_of(name, capsys) == {*OPTIONS[name], *RECIPE_PARTS.get(name, [])}


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in SUBCOMMANDS)


def test_the_help_of_fine_tuning_names_the_way_for_what_has_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Multi-label classification, regression, class weights, frozen blocks, LoRA and cross-validation" in text
    assert "use the model in transformers' Trainer or a custom loop" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "m", "v.mp4", "--clip.num_frames", "0"], "clip.num_frames is 0; it is a number of frames"),
        (
            ["timeline", "m", "v.mp4", "--out", "x.json", "--window", "nan"],
            "--window is nan; it must be float, or left",
        ),
        (["dedupe", "v", "--workers", "two"], "--workers is two; it must be int, or left out"),
    ],
)
def test_a_value_that_may_be_left_out_is_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"videomae: error: {message}")
