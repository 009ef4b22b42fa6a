"""Memory of inference: bounded by a batch, whatever the number of views and the size of the video.

Each measurement is a process of its own: the peak of this one would be that of the tests before it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_networks import tiny_network
from videomae.inference.features import load_features
from videomae.model.encoder import VideoMAEModel
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.video.sampling import ClipConfig, sliding_clips
from videomae.video.write import write_video

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's peak of a process"),
]

NUM_VIEWS = 30
NUM_FRAMES = 48  # of the large video
NATIVE_MB = 1920 * 1080 * 3 / 1e6  # of a frame
# Prints by how many megabytes the process grew at most while each piece of code ran.
MEASURED = """
import sys
from pathlib import Path
import torch
from videomae.evaluation.views import ViewsConfig, read_views
from videomae.inference.features import write_features
from videomae.inference.predictor import Predictor
from videomae.video.sampling import ClipConfig
torch.set_num_threads(1)
def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6
folder, video, output = map(Path, sys.argv[2:])
{setup}
for code in sys.argv[1].split("|"):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    exec(code)
    print(status("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1920 x 1080 pixels."""
    blocks = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)

    def frames() -> Iterator[np.ndarray]:
        for number in range(NUM_FRAMES):
            yield np.roll(blocks, number, axis=1).repeat(120, axis=0).repeat(120, axis=1)

    path = tmp_path_factory.mktemp("large") / "large.mp4"
    write_video(path, frames(), codec="mpeg4", quality=30)
    return path


def growth(setup: str, codes: list[str], *paths: Path) -> list[float]:
    script = MEASURED.format(setup=setup)
    command = [sys.executable, "-c", script, "|".join(codes), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.splitlines()]


def test_many_views_of_a_large_video_need_the_memory_of_a_batch(
    classifier_folder: Path, large_video: Path, tmp_path: Path
) -> None:
    setup = (
        "predictor = Predictor(folder, device='cpu', clip=ClipConfig(16, 1))\n"
        "read = lambda views: read_views(video, clip=predictor.clip, views=views, processor=predictor.processor)\n"
        "predictor.predict(video); read(ViewsConfig(1, 1))"
    )
    predict = f"predictor.predict(video, num_views={NUM_VIEWS})"
    read = f"assert len(read(ViewsConfig({NUM_VIEWS}, 1)).frames) == {NUM_FRAMES}"
    predicted, evaluated = growth(setup, [predict, read], classifier_folder, large_video, tmp_path)
    assert predicted < 150, f"{predicted:.0f} MB; all views at native size have {NUM_VIEWS * 16 * NATIVE_MB:.0f}"
    assert evaluated < 100, f"{evaluated:.0f} MB; all frames at native size have {NUM_FRAMES * NATIVE_MB:.0f}"


def test_features_of_many_clips_are_written_in_the_memory_of_a_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    width, clip, num_frames, num_videos = 1024, ClipConfig(4, 1), 150, 4
    folder, video, output = tmp_path / "model", tmp_path / "video.mp4", tmp_path / "f.safetensors"
    VideoMAEModel(tiny_network(hidden_size=width, num_hidden_layers=1)).save_pretrained(folder)
    VideoMAEImageProcessor(size=32, crop_size=32).save_pretrained(folder)
    save_record(folder, ModelRecord(sampling=clip))
    write_video(video, np.random.default_rng(0).integers(0, 256, (num_frames, 32, 32, 3), dtype=np.uint8))
    settings = "pooling='token', step_frames=1, device='cpu'"
    setup = f"write_features(folder, [video], output, {settings})"
    code = f"write_features(folder, [video] * {num_videos}, output, {settings})"
    (grown,) = growth(setup, [code], folder, video, output)
    num_clips = len(sliding_clips(num_frames, clip, step_frames=1))
    written_mb = num_videos * num_clips * 32 * width * 4 / 1e6
    assert output.stat().st_size / 1e6 > written_mb > 70
    assert grown < 55, f"{grown:.0f} MB, the model among them, for a file of {written_mb:.0f} MB"
    found = load_features(output).videos
    assert [list(one.features.shape) for one in found] == [[num_clips, 32, width]] * num_videos
    assert torch.equal(found[0].features, found[-1].features)
