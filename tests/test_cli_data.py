"""`videomae data generate`, and pre-training on procedural clips by their name."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae.cli import main
from videomae.model.pretraining import VideoMAEForPreTraining

SIZES = {
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


@pytest.mark.parametrize(("kind", "count"), [("procedural", 3), ("motion", 8)])
def test_generated_videos_are_written_and_counted(
    kind: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--videos", "3", "--size", "32", "--num_frames", "4", "--seed", "1"]
    assert main(["data", "generate", kind, str(tmp_path / "v"), *words]) == 0
    assert capsys.readouterr().out == f"{count} videos: {tmp_path / 'v'}\n"
    assert len(list((tmp_path / "v").rglob("*.mp4"))) == count
    assert main(["data", "generate", kind, str(tmp_path / "w"), "--size", "33"]) == 2
    assert "size is 33 pixels" in capsys.readouterr().err
    assert main(["data", "make"]) == 2
    assert "videomae data needs generate or import or check or prepare, got make" in capsys.readouterr().err


def test_pretraining_on_procedural_clips_needs_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"--model.overrides.{name}={value}" for name, value in SIZES.items()]
    words = [
        "--config",
        "tiny",
        "--model.image_size",
        "32",
        "--clip.num_frames",
        "8",
        "--schedule.steps",
        "2",
        *sizes,
    ]
    assert main(["pretrain", "procedural:", *words, "--loop.batch_size", "2", "--out", str(tmp_path / "run")]) == 0
    assert "epochs of 10000 videos" in capsys.readouterr().out
    assert VideoMAEForPreTraining.from_pretrained(tmp_path / "run").config.hidden_size == 32


def test_training_takes_a_skip_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "generate", "procedural", str(tmp_path / "v"), "--videos", "4", "--size", "32"]) == 0
    (tmp_path / "v" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "skip.txt").write_text("bad.mp4\n", encoding="utf-8")
    sizes = [f"--model.overrides.{name}={value}" for name, value in SIZES.items()]
    command = [
        "pretrain",
        str(tmp_path / "v"),
        "--init",
        "null",
        "--model.image_size",
        "32",
        "--clip.num_frames",
        "4",
        *sizes,
    ]
    command += [
        "--schedule.steps",
        "1",
        "--loop.batch_size",
        "2",
        "--loop.workers",
        "0",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*command, "--data.skip", str(tmp_path / "skip.txt")]) == 0
    out = capsys.readouterr()
    assert "bad.mp4" not in out.out + out.err
    (tmp_path / "skip.txt").write_text("other.mp4\n", encoding="utf-8")
    assert main([*command, "--overwrite", "--data.skip", str(tmp_path / "skip.txt")]) == 2
    assert "names 1 video not in" in capsys.readouterr().err
