"""Which decoders there are, and what is said where one cannot be used; torchcodec need not be here for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from videomae.cli import main
from videomae.errors import ConfigError
from videomae.video.decode import VideoReader
from videomae.video.decoders import check_decoder
from videomae.video.opening import open_reader


@pytest.fixture
def _without_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    """What importing does where it is not installed, wherever the tests run."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchcodec", None)


def test_pyav_decodes_unless_told_otherwise_and_needs_nothing(tiny_video: Path) -> None:
    check_decoder("pyav", workers=4)
    with open_reader(tiny_video) as reader:
        assert type(reader) is VideoReader


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"the decoder is 'decord'; it is one of pyav, torchcodec, torchcodec-cuda"):
        check_decoder("decord")


def test_a_gpu_does_not_decode_in_other_processes() -> None:
    with pytest.raises(
        ConfigError, match=r"torchcodec-cuda.*\(workers 2\).*use workers 0.* or the decoder torchcodec"
    ):
        check_decoder("torchcodec-cuda", workers=2)


@pytest.mark.usefixtures("_without_torchcodec")
def test_torchcodec_that_is_missing_is_an_error_that_says_how_to_get_it(tiny_video: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"not installed.*pip install 'torchcodec==0\.13.*torch 2\.11.*FFmpeg 4 to 8"
    ):
        open_reader(tiny_video, decoder="torchcodec")


@pytest.mark.usefixtures("_without_torchcodec")
def test_torchcodec_that_does_not_load_is_an_error_that_names_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchcodec").mkdir()
    text = 'raise RuntimeError("Could not load libtorchcodec.\\nFFmpeg version 8: no\\n")'
    (tmp_path / "torchcodec" / "__init__.py").write_text(text, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "torchcodec")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"does not load with torch \d.* \(Could not load libtorchcodec\.\): pip "):
        check_decoder("torchcodec")


@pytest.mark.usefixtures("_without_torchcodec")
def test_commands_refuse_a_missing_decoder_before_they_begin(
    tmp_path: Path, labelled_folder: Path, tiny_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, nothing = tmp_path / "out", str(tmp_path / "no_model")
    videos = ["--data.train", str(labelled_folder), "--data.decoder", "torchcodec", "--out", str(out)]
    for arguments in (
        ["pretrain", "--config", "tiny", *videos],
        ["predict", nothing, str(tiny_video), "--decoder", "torchcodec"],
        ["features", "--model", nothing, str(tiny_video), "--out", f"{out}.npz", "--decoder", "torchcodec"],
    ):
        assert main(arguments) == 2
        assert "the decoder torchcodec is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
