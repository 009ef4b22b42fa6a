"""Whatever a checkpoint is damaged by, it is refused: in one line, at once, without memory for what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

import damaged_files
from damaged_files import ALLOWANCE_BYTES, DAMAGES, NUM_FILES, make_damaged
from tiny_models import make_model
from videomae.model.classification import VideoMAEForVideoClassification

MOST_SECONDS = 10.0  # a hundred times what the slowest of them takes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory figures from /proc"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, Any]]]:
    """Return for each damaged checkpoint what was done to it and what loading gave, in a process of its own."""
    root = tmp_path_factory.mktemp("damaged")
    make_model(VideoMAEForVideoClassification).save_pretrained(root / "sound")
    (root / "all").mkdir()
    done = make_damaged(root / "sound", root / "all")
    command = [sys.executable, damaged_files.__file__, str(root / "all")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    ran = list(root.glob("all/*/ran"))
    assert not ran, f"a pickle ran its command: {ran}"
    told = json.loads(finished.stdout)
    assert told["peak_of_100_megabytes"] > 90 * 10**6, "the measure of memory does not notice 100 MB"
    return list(zip(done, told["results"], strict=True))


def test_two_hundred_files_of_every_kind_are_read(results: list[tuple[str, dict[str, Any]]]) -> None:
    assert len(results) == NUM_FILES == 200
    assert min(Counter(name for name, _ in results).values()) >= NUM_FILES // len(DAMAGES)


def test_every_damaged_file_gives_a_weights_error_of_one_line(results: list[tuple[str, dict[str, Any]]]) -> None:
    others = [(name, one) for name, one in results if one["kind"] != "WeightsError" or not one["text"].isprintable()]
    assert not others


def test_every_message_names_the_checkpoint(results: list[tuple[str, dict[str, Any]]]) -> None:
    for number, (name, one) in enumerate(results):
        assert f"{number:03d}" in one["text"], (name, one["text"])


def test_none_hangs_and_none_takes_more_memory_than_its_size_and_the_allowance(
    results: list[tuple[str, dict[str, Any]]],
) -> None:
    assert max(one["seconds"] for _, one in results) < MOST_SECONDS
    assert max(one["peak"] - one["size"] for _, one in results) < ALLOWANCE_BYTES
