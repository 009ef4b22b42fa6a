"""The command as a user meets it: its subcommands and options are a frozen list, its errors one line and status 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from videomae.cli import main
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.recipes.schema import FinetuneRecipe, PretrainRecipe, load_recipe
from videomae.sharing.record import ModelRecord, save_record
from videomae.train.resume import saved_recipe
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

SIZES = {
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier of left and right, `fine`, and a pre-training network, `pre`."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    fine = VideoMAEForVideoClassification(VideoMAEConfig(**SIZES, id2label={0: "left", 1: "right"}))
    pre = VideoMAEForPreTraining(VideoMAEConfig(**SIZES, use_mean_pooling=False))
    for name, model in (("fine", fine), ("pre", pre)):
        model.save_pretrained(root / name)
        size = {"shortest_edge": 32}
        VideoMAEImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(root / name)
        save_record(root / name, ModelRecord(sampling=ClipConfig(num_frames=8, stride=1)))
    return root


def test_weights_are_inspected_and_converted_there_and_back(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "inspect", str(models / "fine")]) == 0
    assert "layout" in capsys.readouterr().out
    original = tmp_path / "original.pth"
    assert main(["weights", "convert", str(models / "fine"), str(original), "--to", "original"]) == 0
    config = ["--config", str(models / "fine" / "config.json")]
    assert main(["weights", "convert", str(original), str(tmp_path / "back"), *config]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (models / "fine", tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_without_a_task_say_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "show"]) == 2
    assert "needs inspect or convert, got show" in capsys.readouterr().err


def test_predict_prints_the_classes_of_each_video(
    models: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(models / "fine"), str(labelled_folder / "left" / "0.mp4")]) == 0
    out = capsys.readouterr().out
    assert "left" in out
    assert "right" in out


def test_predict_json_is_one_object_on_standard_output(
    models: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(models / "fine"), str(labelled_folder), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["predictions"]) == 6


def test_predict_uses_the_stored_sampling_unless_told_otherwise(
    models: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(models / "fine"), str(labelled_folder / "left" / "0.mp4"), "--json"]
    found = []
    for extra in ([], ["--clip.num_frames", "8", "--clip.stride", "2"]):
        assert main([*arguments, *extra]) == 0
        found.append(json.loads(capsys.readouterr().out)["predictions"][0]["frame_indices"])
    stored, other = np.asarray(found[0]).ravel(), np.asarray(found[1]).ravel()
    assert len(stored) == len(other) == 8
    assert np.diff(other).max() > np.diff(stored).max()


def test_a_bad_file_among_good_ones_does_not_stop_predict(
    models: Path, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    assert main(["predict", str(models / "fine"), str(bad), str(labelled_folder / "left" / "0.mp4"), "--json"]) == 2
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert len(values["predictions"]) == 1
    assert values["errors"][0]["path"].endswith("bad.mp4")
    assert "bad.mp4" in captured.err


@pytest.mark.parametrize(("pool", "rows"), [("clip", ()), ("frame", (8,)), ("tubelet", (4,)), ("token", (16,))])
def test_features_have_the_shape_of_their_pooling_and_a_time_span_for_each_row(
    pool: str, rows: tuple[int, ...], models: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f.safetensors"
    video = str(labelled_folder / "left" / "0.mp4")
    assert main(["features", str(models / "pre"), video, "--pool", pool, "--out", str(out)]) == 0
    with safe_open(out, "pt") as file:
        tensors = {key.rsplit("/", 1)[1]: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert tensors["features"].shape == (*rows, 32)
    assert tensors["time_spans"].shape == (*rows, 2)


def test_reconstruct_writes_an_image(models: Path, labelled_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    arguments = ["--mask.ratio", "0.75", "--out", str(out)]
    assert main(["reconstruct", str(models / "pre"), str(labelled_folder / "left" / "0.mp4"), *arguments]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


BAD_INPUT = {
    "no such subcommand": (["predikt"], "unknown subcommand 'predikt': did you mean 'predict'?"),
    "no such option": (["predict", "M", "V", "--topk", "3"], "--topk"),
    "missing model": (["predict", "nowhere", "clip.mp4"], "nowhere"),
    "missing video": (["features", "MODELS/pre", "nowhere.mp4", "--out", "OUT/f.safetensors"], "nowhere.mp4"),
    "missing data": (["pretrain", "--config", "tiny", "--data.train", "nowhere", "--out", "OUT/run"], "nowhere"),
    "empty folder": (["pretrain", "--config", "tiny", "--data.train", "EMPTY", "--out", "OUT/run"], "empty"),
    "no video": (["reconstruct", "MODELS/pre", "TEXT", "--out", "OUT/strip.png"], "text.mp4"),
    "zero length": (["reconstruct", "MODELS/pre", "ZERO", "--out", "OUT/strip.png"], "zero.mp4"),
    "truncated": (["reconstruct", "MODELS/pre", "CUT", "--out", "OUT/strip.png"], "cut.mp4"),
    "audio only": (["reconstruct", "MODELS/pre", "SOUND", "--out", "OUT/strip.png"], "sound.mp4"),
    "one class": (["finetune", "--config", "tiny", "--data.train", "ONE", "--out", "OUT/run"], "class"),
    "other classes": (["evaluate", "MODELS/fine", "OTHER"], "up"),
    "unknown recipe": (["pretrain", "--config", "tyni", "--data.train", "D", "--out", "OUT/run"], "'tyni'"),
    "unknown key": (
        ["pretrain", "--config", "tiny", "--data.train", "D", "--optim.lr", "1", "--out", "OUT/run"],
        "optim.lr",
    ),
    "wrong type": (
        ["pretrain", "--config", "tiny", "--data.train", "D", "--loop.seed", "x", "--out", "OUT/run"],
        "loop.seed",
    ),
    "out of range": (
        ["pretrain", "--config", "tiny", "--data.train", "D", "--mask.ratio", "90", "--out", "OUT/run"],
        "did you mean 0.9?",
    ),
    "unknown field": (
        ["pretrain", "--config", "tiny", "--data.train", "D", "--model.overrides.depth", "3", "--out", "OUT/run"],
        "unknown config field 'depth'",
    ),
    "classifier has no decoder": (["reconstruct", "MODELS/fine", "VIDEO", "--out", "OUT/strip.png"], "decoder"),
    "two folders": (["pretrain", "--config", "tiny", "D", "EMPTY", "--out", "OUT/run"], "but one folder is taken"),
    "videos given twice": (
        ["pretrain", "D", "--config", "tiny", "--data.train", "EMPTY", "--out", "OUT/run"],
        "the videos are given twice",
    ),
    "preset without a recipe": (
        ["pretrain", "D", "--model.preset", "large", "--out", "OUT/run"],
        "--model.preset is given without --config",
    ),
    "missing data without a recipe": (["pretrain", "nowhere", "--out", "OUT/run"], "nowhere"),
    "no data": (["pretrain", "--out", "OUT/run"], "data.train"),
    "nothing to resume without a recipe": (["pretrain", "--resume", "--out", "OUT/run"], "there is no run to resume"),
    "nothing to resume": (
        ["pretrain", "--config", "tiny", "--data.train", "D", "--resume", "--out", "OUT/run"],
        "run",
    ),
}


@pytest.fixture(scope="module")
def places(models: Path, labelled_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that the names in capitals above stand for."""
    root = tmp_path_factory.mktemp("bad")
    (root / "empty").mkdir()
    (root / "text.mp4").write_text("this is no video")
    (root / "zero.mp4").touch()
    whole = (labelled_folder / "left" / "0.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_sound(root / "sound.mp4")
    shutil.copytree(labelled_folder / "left", root / "one" / "left")
    shutil.copytree(labelled_folder / "left", root / "other" / "left")
    shutil.copytree(labelled_folder / "right", root / "other" / "up")
    names = {"EMPTY": "empty", "TEXT": "text.mp4", "ZERO": "zero.mp4", "CUT": "cut.mp4", "SOUND": "sound.mp4"}
    files = {word: str(root / name) for word, name in {**names, "ONE": "one", "OTHER": "other"}.items()}
    return {
        **files,
        "MODELS": str(models),
        "D": str(labelled_folder),
        "VIDEO": str(labelled_folder / "left" / "0.mp4"),
    }


def write_sound(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(
    case: str, places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, named = BAD_INPUT[case]
    places = {**places, "OUT": str(tmp_path)}
    filled = ["/".join(places.get(part, part) for part in word.split("/")) for word in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error: " in line]
    assert len(lines) == 1, error
    assert named in lines[0]
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_folder_is_left_alone(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    arguments = ["--data.train", str(labelled_folder), "--overwrite", "--out", str(tmp_path / "run")]
    assert main(["pretrain", "--config", "tiny", *arguments]) == 2
    assert "other content" in capsys.readouterr().err
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_the_module_runs_as_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "videomae", "nonsense"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("videomae: error: unknown subcommand 'nonsense'")


def test_a_video_is_predicted_from_any_folder(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(models / "fine"), "a.mp4"]) == 0
    assert "a.mp4" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_warning_reaches_the_terminal_without_file_and_line(
    models: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "fine", tmp_path / "bare")
    (tmp_path / "bare" / "videomae.json").unlink()
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    command = [
        sys.executable,
        "-m",
        "videomae",
        "predict",
        str(tmp_path / "bare"),
        str(labelled_folder / "left" / "0.mp4"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = result.stderr.splitlines()
    assert sum(line.startswith("warning: ") for line in lines) == 2
    assert not any("UserWarning" in line or ".py:" in line for line in lines)


SMALL_RUN = "--model.image_size 32 --clip.num_frames 4 --loop.workers 0 --loop.batch_size 2".split()
SMALL_RUN += ["--schedule.steps", "1"]


def test_the_folder_alone_is_enough_and_the_chosen_recipe_is_told(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--monitor.max_clips", "4", "--loop.device", "cpu"]
    assert main(["pretrain", *SMALL_RUN, str(labelled_folder), "--out", str(tmp_path / "pre"), *few]) == 0
    told, saved = capsys.readouterr().out, saved_recipe(PretrainRecipe, tmp_path / "pre")
    assert "recipe: laptop, chosen for 6 videos on cpu (continues from the encoder that ships" in told
    assert "model: default, since none is named: 5.3 million parameters" in told
    assert (saved.data.train, saved.init) == (labelled_folder, "default")
    laptop = load_recipe(PretrainRecipe, "laptop", ["--data.train", "videos"])
    assert saved.model.overrides.items() >= laptop.model.overrides.items()


def test_a_chosen_recipe_leaves_model_and_clip_to_init(
    models: Path, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "fine"
    arguments = [
        "--init",
        str(models / "pre"),
        "--out",
        str(run),
        "--schedule.steps",
        "1",
        "--evaluation.workers",
        "0",
    ]
    assert main(["finetune", str(labelled_folder), "--data.val_fraction", "0.34", *arguments]) == 0
    assert f"model, image size and clip: those of {models / 'pre'}, not the recipe's" in capsys.readouterr().out
    recipe = saved_recipe(FinetuneRecipe, run)
    assert (recipe.model.image_size, recipe.model.overrides["hidden_size"]) == (32, SIZES["hidden_size"])
    assert recipe.clip == ClipConfig(num_frames=8, stride=1)


def test_a_named_recipe_is_taken_without_a_word(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--monitor.max_clips", "4"]
    arguments = ["--config", "demo", *SMALL_RUN, *few, "--out", str(tmp_path / "run")]
    assert main(["pretrain", str(labelled_folder), *arguments]) == 0
    assert "chosen" not in capsys.readouterr().out


def test_a_resumed_run_remembers_recipe_and_videos(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["pretrain", str(labelled_folder), "--config", "tiny", *SMALL_RUN, "--out", str(run)]) == 0
    before = saved_recipe(PretrainRecipe, run)
    assert main(["pretrain", "--resume", "--out", str(run)]) == 0
    assert "chosen" not in capsys.readouterr().out
    assert saved_recipe(PretrainRecipe, run) == before
