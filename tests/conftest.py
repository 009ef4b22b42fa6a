"""Settings of every test run, and the videos that the tests of several packages read."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from videomae.video.write import write_video

pytest_plugins = ["loopback_s3", "model_folders"]

TESTS = Path(__file__).parent
# Whose results are floating-point numbers: the marker `numeric`, which .ci/instruction_sets.py runs under every
# instruction set of the processor.
NUMERIC = (
    "benchmarks/test_ablation.py",
    "compat",
    "data/test_augment.py",
    "engine/test_optim.py",
    "engine/test_precision.py",
    "engine/test_schedule.py",
    "evaluation",
    "inference",
    "model",
    "probing",
    "processing",
    "sharing/test_conversion.py",
    "test_patches.py",
    "train/test_finetune.py",
    "train/test_pretrain.py",
    "weights/test_loading.py",
)

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each worker process: two workers with two threads each on two cores are slower than one.
    # Here, because it must be set before the first import of torch; programs that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell that starts the tests in the background has SIGINT ignored in them, and so in the programs they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the numeric tests; skip those marked `network`, visibly, unless `-m` names the marker."""
    numeric = [TESTS / place for place in NUMERIC]
    if missing := [place for place in numeric if not place.exists()]:
        raise pytest.UsageError(f"NUMERIC in tests/conftest.py names {missing[0]}, which is not there")
    for item in items:
        if any(item.path.is_relative_to(place) for place in numeric):
            item.add_marker(pytest.mark.numeric)
    if "network" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker(pytest.mark.skip(reason="needs the internet: run it with -m network"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute on one thread: tiny matrices gain nothing from more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same random state."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_frames() -> NDArray[np.uint8]:
    """`[40, 48, 64, 3]` frames, no two alike: a ramp that drifts, with a square that walks over it."""
    rows, columns = np.mgrid[0:48, 0:64]
    frames = np.empty((40, 48, 64, 3), np.uint8)
    for time in range(40):
        frames[time] = np.stack([2 * columns + 3 * time, 4 * rows, 255 - 3 * columns - time], axis=-1).clip(0, 255)
        frames[time, 8:20, time : time + 12] = (250, 6 * time, 30)
    return frames


@pytest.fixture(scope="session")
def tiny_video(tmp_path_factory: pytest.TempPathFactory, tiny_frames: NDArray[np.uint8]) -> Path:
    """`tiny_frames` as a video of 25 frames per second, a keyframe every 12 frames. Read it, never change it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.mp4"
    write_video(path, tiny_frames)
    return path


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory, tiny_frames: NDArray[np.uint8]) -> Path:
    """A folder of two classes, `left` and `right`, with three videos of 24 frames each. Never change it."""
    root = tmp_path_factory.mktemp("labelled")
    for name, clip in (("left", tiny_frames[::-1]), ("right", tiny_frames)):
        (root / name).mkdir()
        for number in range(3):
            write_video(root / name / f"{number}.mp4", clip[4 * number : 4 * number + 24])
    return root


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real videos and reference numbers beside the checkout; tests that need it skip without it."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the folder shared/ beside the checkout; {folder} is not there")
    return folder
