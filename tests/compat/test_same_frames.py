"""One file gives one clip: every public way to a clip reads the same frames of it, however short it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_networks import tiny_network
from videomae import (
    Predictor,
    VideoMAEVideoProcessor,
    VideoReader,
    extract_features,
    pipeline,
    reconstruct,
)
from videomae.data.manifest import Manifest, VideoRow
from videomae.evaluation.evaluator import evaluate
from videomae.evaluation.results import EvaluationConfig
from videomae.evaluation.views import ViewsConfig
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

KINDS = ("dense", "original")
LENGTHS = (1, 7, 16, 20, 64, 300)
# Stride 4 from the start or in the middle, then the last frame on it; the table of docs/concepts.md.
DENSE = {
    1: [0] * 16,
    7: [0] + [4] * 15,
    16: [0, 4, 8] + [12] * 13,
    20: [0, 4, 8, 12] + [16] * 12,
    64: list(range(1, 62, 4)),
    300: list(range(119, 180, 4)),
}
# About stride 4, then the last frame; from 65 frames on 16 frames of the middle 64, both ends included.
ORIGINAL = {
    1: [0] * 16,
    7: [0] + [6] * 15,
    16: [0, 5, 10] + [15] * 13,
    20: [0, 5, 10, 15] + [19] * 12,
    64: [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63],
    300: [118, 122, 126, 130, 135, 139, 143, 147, 152, 156, 160, 164, 169, 173, 177, 181],
}
EXPECTED = {"dense": DENSE, "original": ORIGINAL}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """A classifier and a pre-trained model of 16 frames, for each kind of clip."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    classifier = VideoMAEForVideoClassification(tiny_network(num_frames=16, id2label={0: "cut", 1: "run"}))
    pretrained = VideoMAEForPreTraining(tiny_network(num_frames=16, use_mean_pooling=False))
    for name, model in (("classifier", classifier), ("pretrained", pretrained)):
        for kind in KINDS:
            folder = root / kind / name
            model.save_pretrained(folder)
            VideoMAEImageProcessor(size=32, crop_size=32).save_pretrained(folder)
            save_record(folder, ModelRecord(sampling=ClipConfig(num_frames=16, stride=4, kind=kind)))
    return {kind: {name: root / kind / name for name in ("classifier", "pretrained")} for kind in KINDS}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for count in LENGTHS:
        frames = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
        write_video(root / f"{count}.mp4", frames)
    return {count: root / f"{count}.mp4" for count in LENGTHS}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every frame index that is read from any file, in order."""
    taken: list[int] = []
    frames = VideoReader.frames_in_order

    def noted(self: VideoReader, indices: np.ndarray, *, threads: int = 1) -> Iterator[np.ndarray]:
        taken.extend(np.asarray(indices).tolist())
        return frames(self, indices, threads=threads)

    monkeypatch.setattr(VideoReader, "frames_in_order", noted)
    return taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", LENGTHS)
def test_every_public_way_takes_the_same_frames_of_a_file(
    folders: dict[str, dict[str, Path]], files: dict[int, Path], read: list[int], count: int, kind: str
) -> None:
    path, expected = files[count], EXPECTED[kind][count]
    classifier = folders[kind]["classifier"]

    processor = VideoMAEVideoProcessor.from_pretrained(classifier)
    inputs = processor(path, return_tensors="pt", return_metadata=True)
    assert inputs.video_metadata[0].frames_indices == expected
    predictor = Predictor(classifier, device="cpu")
    assert [list(row) for row in predictor.predict(path).frame_indices] == [expected]
    features = extract_features(classifier, [path], device="cpu").videos[0]
    assert features.frame_indices.tolist() == expected
    assert reconstruct(folders[kind]["pretrained"], path, device="cpu").frame_indices.tolist() == expected

    read.clear()
    (score, *_) = pipeline("video-classification", classifier, device="cpu")(path)
    assert sorted(set(read)) == sorted(set(expected))
    read.clear()
    manifest = Manifest(path.parent, (VideoRow(path, 0),), ("cut", "run"))
    config = EvaluationConfig(views=ViewsConfig(num_clips=1, num_crops=1), workers=0, precision="fp32")
    result = evaluate(predictor.model, manifest, processor=predictor.processor, clip=predictor.clip, config=config)
    assert sorted(set(read)) == sorted(set(expected))

    with torch.inference_mode():  # how often each frame is repeated shows in the outputs
        wanted = predictor.model(inputs.pixel_values).logits[0].double().softmax(dim=0)
    np.testing.assert_allclose(score["score"], wanted.max(), atol=1e-6)
    np.testing.assert_allclose(result.rows[0].probabilities, wanted, atol=1e-6)


def test_frames_in_memory_are_a_video_unless_they_are_one_clip(
    folders: dict[str, dict[str, Path]], files: dict[int, Path]
) -> None:
    classifier = folders["dense"]["classifier"]
    predictor = Predictor(classifier, device="cpu")
    processor = VideoMAEVideoProcessor.from_pretrained(classifier)
    for count, path in files.items():
        with VideoReader(path) as reader:
            frames = reader.frames(range(count))
        expected = list(range(16)) if count == 16 else DENSE[count]
        assert [list(row) for row in predictor.predict(frames).frame_indices] == [expected]
        sampled = processor(frames, do_sample_frames=True, return_metadata=True)
        assert sampled.video_metadata[0].frames_indices == expected
