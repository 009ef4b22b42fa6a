"""The suite that trains from files: the usual pipeline is what it says, all ways run, ratios are of the times."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.contenders import SIZES
from benchmarks.end_to_end import WARMUP_STEPS, Way, rows_of, ways
from benchmarks.run import main
from benchmarks.step_clock import StepClock, our_arguments
from benchmarks.usual_pipeline import UsualClips, multi_scale_crop, open_with_pyav, opener
from PIL import Image

from videomae.presets import IMAGENET_MEAN, IMAGENET_STD
from videomae.recipes.schema import PretrainRecipe, parse_recipe, recipe_parser
from videomae.video.write import write_video

CPU = torch.device("cpu")
GRAY = 90


@pytest.fixture(scope="module")
def gray_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("usual") / "gray.mp4"
    write_video(path, np.full((70, 48, 64, 3), GRAY, np.uint8), frame_rate=30.0)
    return path


def test_the_usual_pipeline_gives_normalized_float32_and_a_tube_mask(gray_video: Path) -> None:
    config = SIZES["tiny"].replace(num_frames=16)
    clip, mask = UsualClips([gray_video], config)[0]
    assert (clip.shape, clip.dtype) == ((16, 3, 32, 32), torch.float32)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        assert clip[:, channel].mean().item() == pytest.approx((GRAY / 255 - mean) / std, abs=0.03)
    places = mask.view(8, 16)  # of 4 x 4 patches
    assert torch.equal(places, places[:1].expand(8, 16))
    assert int(places[0].sum()) == 14


def test_the_usual_pipeline_reads_the_frames_that_it_asks_for(tmp_path: Path) -> None:
    brightness = np.arange(70, dtype=np.uint8) * 3
    write_video(tmp_path / "video.mp4", np.tile(brightness[:, None, None, None], (1, 48, 64, 3)), frame_rate=30.0)
    for _, open_video in (opener(), ("PyAV", open_with_pyav)):
        length, read = open_video(tmp_path / "video.mp4")
        frames = read([5, 9, 60])
        assert length == 70
        assert np.abs(frames.mean(axis=(1, 2, 3)) - brightness[[5, 9, 60]]).max() < 3


def test_the_crops_of_the_usual_pipeline_are_of_all_frames_alike_and_of_the_size() -> None:
    across = np.tile(np.arange(80, dtype=np.uint8)[None, :, None], (60, 1, 3))
    sides = set()
    for _ in range(60):
        one, other = (np.asarray(image) for image in multi_scale_crop([Image.fromarray(across)] * 2, 32))
        assert one.shape == (32, 32, 3)
        assert np.array_equal(one, other)
        sides.add(round((int(one[0, -2, 0]) - int(one[0, 1, 0])) * 32 / 29))
    assert 35 < min(sides) < 45  # 0.66 of 60
    assert 55 < max(sides) < 65


def test_our_side_is_the_command_with_its_defaults(tmp_path: Path) -> None:
    sizes = {"image_size": 112, "batch_size": 8, "steps": 17, "workers": 1, "device": "cpu", "precision": "auto"}
    for name, width in (("S", 384), ("tiny", 64)):
        given = our_arguments(name, tmp_path, tmp_path / "run", **sizes)  # type: ignore[arg-type]
        assert given[:4] == ["pretrain", str(tmp_path), "--out", str(tmp_path / "run")]
        options = ["--data.train", str(tmp_path), *given[4:]]
        recipe, _ = parse_recipe(PretrainRecipe, recipe_parser(PretrainRecipe, prog="pretrain"), options)
        config = recipe.model.build(recipe.clip)
        assert (config.hidden_size, config.image_height_width) == (width, (112, 112))
        assert (recipe.mask.kind, recipe.mask.ratio, recipe.mask.decoder_kind) == ("tube", 0.9, "all")
        assert (recipe.augment.crop, recipe.augment.repeats, recipe.monitor.enabled) == ("multi_scale", 1, True)


def test_the_clock_counts_the_steps_between_its_marks() -> None:
    clock = StepClock(first=2, last=5, device=CPU)
    for _ in range(7):
        clock.asked()
        clock.got()
    found = clock.found(batch_size=4)
    assert found["clips"] == 12
    assert found["waited"] is not None
    assert 0 <= found["waited"] < 1


def test_ratios_are_to_the_usual_pipeline_by_the_processor_time_of_all_processes() -> None:
    options = argparse.Namespace(core_hour=3.6, gpu_hour=7.2)
    contenders = [
        Way("usual", False, False, False),
        Way("usual, bf16", False, True, False),
        Way("ours", True, True, False),
    ]
    assert [one.is_ours for one in ways(bf16=False)] == [False, True, True]
    seconds = [(8.0, 4.0), (4.0, 4.0), (2.0, 1.0)]
    found = [
        [{"clips": 10, "wall": 20.0, "main": main, "workers": read, "waited": 0.25}] * 3 for main, read in seconds
    ]
    usual, bf16, ours = rows_of(contenders, found, options, device=CPU)
    assert usual.faster is None
    medians = [
        one and one.median for one in (ours.faster, ours.faster_than_bf16, ours.step_faster, ours.reading_faster)
    ]
    assert medians == pytest.approx([4, 8 / 3, 4, 4])
    assert bf16.faster is not None
    assert bf16.faster.median == pytest.approx(1.5)
    assert bf16.faster_than_bf16 is None
    assert ours.processor_seconds == pytest.approx(300)
    assert ours.price == pytest.approx(0.3)
    assert ours.clips_per_second == pytest.approx(0.5)
    on_a_gpu = rows_of(contenders, found, options, device=torch.device("cuda"))[2]
    assert on_a_gpu.price == pytest.approx(4.0)
    assert on_a_gpu.faster is not None
    assert on_a_gpu.faster.median == pytest.approx(1.0)


@pytest.mark.slow
def test_the_command_trains_from_files_in_all_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--suite", "end_to_end", "--sizes", "tiny", "--image_size", "32", "--num_videos", "2", "--seconds", "3"]
    given += ["--batch", "2", "--steps", "2", "--rounds", "1", "--precision", "fp32", "--threads", "1"]
    main([*given, "--out", str(tmp_path)])
    (as_json,) = tmp_path.glob("*-cpu-fp32-end_to_end-tiny.json")
    found = json.loads(as_json.read_text())
    assert found["command"].startswith(
        "python -m benchmarks.run --suite end_to_end --device cpu --sizes tiny --batch 2"
    )
    rows = found["rows"]
    assert [(row["contender"], row["videos"]) for row in rows] == [
        ("usual pipeline, float32", "original"),
        ("videomae pretrain", "original"),
        ("videomae pretrain", "prepared"),
    ]
    assert WARMUP_STEPS >= 4  # the monitor's measurements before and after the first step lie before them
    for row in rows:
        assert row["step"][0] > 0
        assert row["reading"][0] > 0
        assert 0 <= row["data_wait"] <= 1
        assert (
            f"| {row['contender']} | {row['videos']} |"
            in capsys.readouterr().out + as_json.with_suffix(".md").read_text()
        )
