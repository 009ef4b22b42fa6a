"""Videos in every form that programs have them give the predictions of the file."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.errors import ConfigError, VideoReadError
from videomae.inference.predictor import Predictor
from videomae.video.decode import read_clip


@pytest.fixture(scope="module")
def predictor(classifier_folder: Path) -> Predictor:
    return Predictor(classifier_folder, device="cpu")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def address(video: Path) -> Iterator[str]:
    """The http address of the folder of `video`, on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(video.parent))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_bytes_and_open_files_are_read_as_the_file_is(predictor: Predictor, video: Path) -> None:
    wanted = predictor.predict(video)
    content = video.read_bytes()
    with video.open("rb") as file:
        for given in (content, bytearray(content), memoryview(content), io.BytesIO(content), file):
            found = predictor.predict(given)
            assert found.probabilities == wanted.probabilities
            assert found.frame_seconds == wanted.frame_seconds
            assert found.path is None
    assert predictor.predict(str(video)) == wanted


def test_nothing_is_left_of_the_copy(
    predictor: Predictor, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    predictor.predict(video.read_bytes())
    with pytest.raises(VideoReadError):
        predictor.predict(b"no video")
    assert os.listdir(tmp_path) == []


def test_an_address_is_read_as_the_file_is(predictor: Predictor, video: Path, address: str) -> None:
    found = predictor.predict(f"{address}/{video.name}")
    assert found.probabilities == predictor.predict(video).probabilities
    assert found.path == f"{address}/{video.name}"
    with pytest.raises(VideoReadError, match=r"missing\.mp4 does not exist: check the address"):
        predictor.predict(f"{address}/missing.mp4")
    with pytest.raises(VideoReadError, match="addresses of the kind rtsp:// are not read; give an http"):
        predictor.predict("rtsp://127.0.0.1/camera")


def test_frames_in_every_container_and_layout_are_the_same_video(predictor: Predictor, video: Path) -> None:
    frames = read_clip(video, range(30))
    wanted = predictor.predict(frames)
    tensor = torch.from_numpy(frames)
    forms = {
        "list of arrays": list(frames),
        "tuple of arrays": tuple(frames),
        "deque of arrays": deque(frames, maxlen=30),
        "list of PIL images": [Image.fromarray(frame) for frame in frames],
        "list of tensors": list(tensor),
        "channels first array": frames.transpose(0, 3, 1, 2),
        "tensor": tensor,
        "channels first tensor": tensor.permute(0, 3, 1, 2),
        "other integers": frames.astype(np.int64),
    }
    for name, form in forms.items():
        assert predictor.predict(form) == wanted, name


def test_grey_frames_are_grey_rgb(predictor: Predictor) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (4, 40, 48), dtype=np.uint8)
    wanted = predictor.predict(np.repeat(grey[..., None], 3, axis=3))
    assert predictor.predict(list(grey)) == wanted
    assert predictor.predict([Image.fromarray(frame) for frame in grey]) == wanted


def test_a_batch_gives_a_prediction_for_each_video(predictor: Predictor, video: Path) -> None:
    one = predictor.predict(video, top_k=2)
    frames = read_clip(video, range(30))
    of_frames = predictor.predict(frames, top_k=2)
    assert predictor.predict([video, str(video)], top_k=2) == [one, one]
    for batch in ([frames, frames], np.stack([frames, frames]), [list(frames), deque(frames)], deque([frames] * 2)):
        assert predictor.predict(batch, top_k=2) == [of_frames, of_frames]
    mixed = predictor.predict([video.read_bytes(), frames, video], top_k=2)
    assert [found.path for found in mixed] == [None, None, str(video)]
    assert mixed[0].probabilities == one.probabilities


FRAME = np.zeros((32, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "a NoneType is no video: give a path, an http.s. address, bytes or an open binary file"),
        ({"video": 1}, "a dict is no video: give a path"),
        (3, "a int is no video: give a path"),
        ([], "the list of videos or frames is empty: give a path"),
        ([FRAME, "a.mp4"], "the list mixes frames and videos: give a path"),
        ([FRAME, FRAME[:16]], r"the frames differ in size or type \(40x16 and 40x32\): give frames of one video"),
        ([FRAME / 255.0] * 4, r"the frames have shape \[4, 3, 32, 40\] and dtype torch.float32; they must be uint8"),
        (FRAME, r"the frames have shape \[32, 40, 3\] and dtype uint8; they must be uint8 \[n, H, W, 3\]"),
        (Image.fromarray(FRAME), "a Image is no video: give a path"),
        ((FRAME for _ in range(4)), "a generator is no video: give a path"),
        (["a", 3], "the list mixes frames and videos: give a path"),
        ([object()], "the frames cannot be taken: a object is no frame: a frame is a PIL image"),
        (io.StringIO("text"), 'the open file is open as text: open it with mode "rb"'),
    ],
)
def test_what_cannot_be_taken_is_told_what_can(predictor: Predictor, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        predictor.predict(given)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_video_are_named_without_the_copy(predictor: Predictor) -> None:
    with pytest.raises(VideoReadError, match=r"^the 8 bytes cannot be read as video: "):
        predictor.predict(b"no video")
    with pytest.raises(VideoReadError, match=r"^the open file is empty"):
        predictor.predict(io.BytesIO(b""))
