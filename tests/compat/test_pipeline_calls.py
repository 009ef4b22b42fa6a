"""The ways in which programs written for transformers make and call the pipeline: each gives the same scores."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from videomae.compat.pipeline import VideoClassificationPipeline, pipeline
from videomae.compat.video_processor import VideoMAEVideoProcessor
from videomae.errors import ConfigError
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.sharing.record import load_record
from videomae.video.decode import read_clip

TASK = "video-classification"


@pytest.fixture(scope="module")
def classify(classifier_folder: Path) -> VideoClassificationPipeline:
    return pipeline(TASK, model=classifier_folder, device="cpu")


MADE: dict[str, Callable[[str], VideoClassificationPipeline]] = {
    "task from the model": lambda folder: pipeline(model=folder),
    "task by keyword": lambda folder: pipeline(task=TASK, model=folder),
    "feature_extractor by name": lambda folder: pipeline(TASK, folder, feature_extractor=folder),
    "video_processor by path": lambda folder: pipeline(TASK, folder, video_processor=Path(folder)),
    "model in memory": lambda folder: pipeline(
        TASK, VideoMAEForVideoClassification.from_pretrained(folder), image_processor=folder
    ),
    "arguments of no effect": lambda folder: pipeline(
        TASK,
        folder,
        framework="pt",
        tokenizer=None,
        trust_remote_code=True,
        use_fast=False,
        batch_size=2,
        num_workers=0,
    ),
    "torch_dtype": lambda folder: pipeline(TASK, folder, torch_dtype=torch.float32),
    "dtype auto": lambda folder: pipeline(TASK, folder, dtype="auto"),
    "device_map": lambda folder: pipeline(TASK, folder, device_map="cpu"),
    "device_map of the whole": lambda folder: pipeline(TASK, folder, device_map={"": "cpu"}),
    "model_kwargs": lambda folder: pipeline(TASK, folder, model_kwargs={"attn_implementation": "eager"}),
}


@pytest.mark.parametrize("way", MADE)
def test_every_way_of_making_it_gives_the_same(
    classify: VideoClassificationPipeline, classifier_folder: Path, video: Path, way: str
) -> None:
    made = MADE[way](str(classifier_folder))
    got = made(str(video))
    wanted = classify(video)
    assert [one["label"] for one in got] == [one["label"] for one in wanted]
    np.testing.assert_allclose([one["score"] for one in got], [one["score"] for one in wanted], atol=1e-6)


class Videos(Dataset[str]):
    def __init__(self, path: str) -> None:
        self.path = path

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> str:
        return self.path


def test_iterators_and_data_sets_are_classified_one_by_one(
    classify: VideoClassificationPipeline, video: Path
) -> None:
    wanted = classify(video)
    asked: list[int] = []

    def videos() -> Iterator[str]:
        for number in range(3):
            asked.append(number)
            yield str(video)

    results = classify(videos())
    assert next(results) == wanted
    assert asked == [0], "an endless source of videos must give its first result"
    assert list(results) == [wanted, wanted]
    assert list(classify(Videos(str(video)))) == [wanted, wanted]


def test_older_names_and_arguments_of_the_call(classify: VideoClassificationPipeline, video: Path) -> None:
    wanted = classify(video)
    assert classify(videos=str(video)) == wanted
    assert classify(inputs=video, top_k=None, function_to_apply=None) == wanted
    assert classify([video, video], batch_size=2, num_workers=0) == [wanted, wanted]


def test_frames_and_bytes_are_videos_too(classify: VideoClassificationPipeline, video: Path) -> None:
    wanted = classify(video)
    assert classify(video.read_bytes()) == wanted
    frames = read_clip(video, range(30))
    for given in (
        frames,
        torch.from_numpy(frames),
        list(frames),
        deque(frames),
        [Image.fromarray(frame) for frame in frames],
    ):
        assert classify(given) == wanted
    assert classify([frames, frames]) == [wanted, wanted]


def test_its_parts_have_transformers_names(classify: VideoClassificationPipeline) -> None:
    assert classify.image_processor is classify.video_processor is classify.feature_extractor is classify.processor
    assert (classify.framework, classify.task, classify.tokenizer) == ("pt", TASK, None)
    assert (classify.device, classify.dtype) == (torch.device("cpu"), torch.float32)


def test_save_pretrained_writes_a_folder_that_gives_the_same(
    classify: VideoClassificationPipeline, classifier_folder: Path, tmp_path: Path, video: Path
) -> None:
    classify.save_pretrained(tmp_path / "saved")
    assert pipeline(TASK, tmp_path / "saved", device="cpu")(video) == classify(video)
    shutil.copytree(classifier_folder, tmp_path / "bare")
    (tmp_path / "bare" / "videomae.json").unlink()
    told = pipeline(TASK, tmp_path / "bare", device="cpu", clip=classify.clip)
    told.save_pretrained(tmp_path / "told")
    assert load_record(tmp_path / "told").sampling == classify.clip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"framework": "tf"}, "framework is 'tf'; the models are PyTorch's"),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number, at least 1"),
        ({"dtype": "float32", "torch_dtype": "float32"}, "dtype and torch_dtype are one argument"),
        ({"device_map": {"videomae": 0, "classifier": 1}}, "the model computes on one device"),
        ({"model": None}, "model is not given: give a folder, a name on the Hub"),
    ],
)
def test_arguments_that_cannot_be_followed_are_named(
    classifier_folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(TASK, **{"model": classifier_folder, **options})


def test_a_call_without_a_video_or_with_an_unknown_argument_is_told_so(
    classify: VideoClassificationPipeline, video: Path
) -> None:
    with pytest.raises(ConfigError, match="inputs is not given, or videos beside it: give a path"):
        classify()
    with pytest.raises(ConfigError, match="unknown argument of the pipeline's call 'topk': did you mean 'top_k'"):
        classify(video, topk=1)


def test_a_processor_of_another_name_is_used(classifier_folder: Path, tmp_path: Path, video: Path) -> None:
    processor = VideoMAEVideoProcessor.from_pretrained(classifier_folder, image_mean=[0.1, 0.9, 0.1])
    processor.save_pretrained(tmp_path)
    named = pipeline(TASK, classifier_folder, device="cpu", image_processor=str(tmp_path))
    given = pipeline(TASK, classifier_folder, device="cpu", image_processor=processor)
    assert named(video) == given(video) != pipeline(TASK, classifier_folder, device="cpu")(video)
