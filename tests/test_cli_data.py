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
    assert "videomae data needs generate or import, got make" in capsys.readouterr().err


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
