"""The video processor: files and frames, which frames are taken, its files, and transformers' own beside it.

transformers' class needs torchvision; where that is missing, its image processor for Pillow, which its class equals
on frames, and its rule of sampling stand in for it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.compat.video_processor import VIDEO_PROCESSOR_FILE, VideoMAEVideoProcessor
from videomae.errors import ConfigError, VideoReadError, WeightsError
from videomae.processing.image_processor import PROCESSOR_FILE, VideoMAEImageProcessor
from videomae.video.decode import read_clip
from videomae.video.sampling import ClipConfig, centre_clip
from videomae.video.write import write_video

SMALL = {"size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}}
CLIP = ClipConfig(num_frames=4, stride=3)
NUM_FRAMES = 30  # of the shared `video`, at 20 frames per second
FRAMES = np.random.default_rng(0).integers(0, 256, (8, 30, 40, 3), dtype=np.uint8)
CHW = np.ascontiguousarray(FRAMES.transpose(0, 3, 1, 2))
PIL_FRAMES = [Image.fromarray(frame) for frame in FRAMES]
INPUTS: dict[str, Any] = {
    "HWC arrays": list(FRAMES),
    "CHW arrays": list(CHW),
    "PIL": PIL_FRAMES,
    "tensors": list(torch.from_numpy(CHW)),
    "HWC array": FRAMES,
    "CHW tensor": torch.from_numpy(CHW),
    "batch of lists": [list(FRAMES), list(FRAMES[::-1])],
    "batch of arrays": [FRAMES, FRAMES[::-1].copy()],
    "five dimensions": torch.from_numpy(np.stack([CHW, CHW])),
    "one frame": FRAMES[0],
}


@pytest.fixture
def processor() -> VideoMAEVideoProcessor:
    return VideoMAEVideoProcessor(**SMALL, clip=CLIP)


def same(ours: Any, frames: Any, **settings: Any) -> bool:
    """Tell whether pixel values are those of the image processor for these frames, `[T, H, W, C]` each."""
    wanted = VideoMAEImageProcessor(**{**SMALL, **settings})(frames, return_tensors="pt").pixel_values
    return torch.equal(torch.as_tensor(ours.pixel_values), wanted)


def upstream(name: str) -> Any:
    """Return a class of transformers, or skip where one that computes with torchvision cannot."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("transformers' video processor needs torchvision")
    return getattr(pytest.importorskip("transformers"), name)


def test_properties_and_defaults_are_transformers() -> None:
    ours = VideoMAEVideoProcessor()
    for name, value in {
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_normalize": True,
        "do_convert_rgb": True,
        "do_sample_frames": False,
        "num_frames": None,
        "fps": None,
        "model_input_names": ["pixel_values"],
    }.items():
        assert getattr(ours, name) == value, name
    assert (tuple(ours.image_mean), tuple(ours.image_std)) == ((0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("videos", INPUTS.values(), ids=INPUTS.keys())
def test_frames_in_every_form_are_what_transformers_makes_of_them(videos: Any) -> None:
    module = pytest.importorskip("transformers.models.videomae.image_processing_pil_videomae")
    theirs = videos if not torch.is_tensor(videos) or videos.ndim < 5 else list(videos)  # which it refuses
    wanted = module.VideoMAEImageProcessorPil(**SMALL)(theirs, return_tensors="pt").pixel_values
    got = VideoMAEVideoProcessor(**SMALL)(videos, return_tensors="pt").pixel_values
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    assert (got - wanted).abs().max() <= 1.001 * 2 / 255  # one grey level


def test_transformers_own_class_gives_the_same() -> None:
    Upstream = upstream("VideoMAEVideoProcessor")
    for name, videos in INPUTS.items():
        wanted = Upstream(**SMALL)(videos, return_tensors="pt").pixel_values
        got = VideoMAEVideoProcessor(**SMALL)(videos, return_tensors="pt").pixel_values
        assert (got - wanted).abs().max() <= 1.001 * 2 / 255, name


def test_a_file_gives_the_middle_clip_with_the_models_sampling(
    processor: VideoMAEVideoProcessor, video: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = processor(video, return_tensors="pt", return_metadata=True)
    indices = centre_clip(NUM_FRAMES, CLIP)
    assert same(features, read_clip(video, indices))
    (facts,) = features.video_metadata
    assert facts.frames_indices == indices.tolist()
    assert facts.timestamps == pytest.approx((indices / 20).tolist())
    assert (facts["total_num_frames"], facts["width"], facts["height"]) == (NUM_FRAMES, 64, 48)
    assert (facts["fps"], facts["duration"]) == (pytest.approx(20), pytest.approx(1.5))
    assert dict(facts)["frames_indices"] == facts.frames_indices


def test_without_any_sampling_the_published_one_is_taken_with_a_warning(video: Path) -> None:
    with pytest.warns(
        UserWarning, match="taking 16 frames, stride 4, from the middle.*give num_frames, fps, or clip"
    ):
        features = VideoMAEVideoProcessor(**SMALL)(str(video), return_tensors="pt")
    assert same(features, read_clip(video, centre_clip(NUM_FRAMES, ClipConfig(16, 4, "original"))))


def test_every_frame_only_where_it_is_asked_for(processor: VideoMAEVideoProcessor, video: Path) -> None:
    features = processor(video, do_sample_frames=False, return_tensors="pt")
    assert same(features, read_clip(video, range(NUM_FRAMES)))


@pytest.mark.parametrize("count", [1, 7, 16, 30])
def test_num_frames_are_spread_as_transformers_spreads_them(
    processor: VideoMAEVideoProcessor, video: Path, count: int
) -> None:
    utils = pytest.importorskip("transformers.video_utils")
    facts = utils.VideoMetadata(total_num_frames=NUM_FRAMES, fps=20.0)
    wanted = utils.default_sample_indices_fn(facts, num_frames=count)
    features = processor(video, num_frames=count, return_tensors="pt", return_metadata=True)
    assert features.video_metadata[0].frames_indices == wanted.tolist()
    assert same(features, read_clip(video, wanted))
    assert same(
        VideoMAEVideoProcessor(**SMALL, num_frames=count)(video, return_tensors="pt"), read_clip(video, wanted)
    )


@pytest.mark.parametrize("fps", [0.1, 5, 12.5, 20])
def test_fps_takes_the_frames_that_transformers_takes(
    processor: VideoMAEVideoProcessor, video: Path, fps: float
) -> None:
    utils = pytest.importorskip("transformers.video_utils")
    wanted = utils.default_sample_indices_fn(utils.VideoMetadata(total_num_frames=NUM_FRAMES, fps=20.0), fps=fps)
    features = processor(video, fps=fps, return_metadata=True)
    assert features.video_metadata[0].frames_indices == wanted.tolist()


def test_a_video_with_too_few_frames_repeats_them(processor: VideoMAEVideoProcessor, tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", FRAMES[:3])
    taken = processor(tmp_path / "short.mp4", num_frames=6, return_metadata=True).video_metadata[0].frames_indices
    assert taken == [0, 0, 1, 1, 2, 2]
    clip = processor(tmp_path / "short.mp4", return_tensors="pt")
    assert clip.pixel_values.shape == (1, 4, 3, 18, 18)


def test_files_of_different_lengths_make_one_batch(
    processor: VideoMAEVideoProcessor, video: Path, tmp_path: Path
) -> None:
    write_video(tmp_path / "other.mp4", FRAMES)
    features = processor([video, str(tmp_path / "other.mp4")], return_tensors="np", return_metadata=True)
    assert features.pixel_values.shape == (2, 4, 3, 18, 18)
    assert [facts.total_num_frames for facts in features.video_metadata] == [NUM_FRAMES, 8]
    assert isinstance(features.pixel_values, np.ndarray)


def test_frames_are_sampled_where_it_is_asked_for(processor: VideoMAEVideoProcessor) -> None:
    assert same(processor(FRAMES, return_tensors="pt"), FRAMES)
    assert same(processor(FRAMES, do_sample_frames=True, return_tensors="pt"), FRAMES[centre_clip(8, CLIP)])
    assert same(processor(FRAMES, num_frames=4, return_tensors="pt"), FRAMES[[0, 2, 4, 6]])
    always = VideoMAEVideoProcessor(**SMALL, do_sample_frames=True, num_frames=4)
    for form in ("HWC arrays", "PIL", "HWC array", "CHW tensor"):
        assert same(always(INPUTS[form], return_tensors="pt"), FRAMES[[0, 2, 4, 6]]), form
    assert same(always(FRAMES, do_sample_frames=False, return_tensors="pt"), FRAMES)
    exactly = processor(FRAMES[:4], do_sample_frames=True, return_tensors="pt")
    assert same(exactly, FRAMES[:4]), "as many frames as a clip has are the clip"


def test_frames_are_sampled_by_fps_with_their_metadata(processor: VideoMAEVideoProcessor) -> None:
    batch = [FRAMES, FRAMES[::-1].copy()]
    known = [{"total_num_frames": 8, "fps": 8.0}, {"total_num_frames": 8, "fps": 4.0}]
    features = processor(batch, fps=2, video_metadata=known, return_metadata=True)
    assert [facts.frames_indices for facts in features.video_metadata] == [[0, 4], [0, 2, 4, 6]]
    assert [len(one) for one in features.pixel_values] == [2, 4]
    assert features.video_metadata[0].fps == 8.0
    plain = processor(FRAMES, video_metadata={"total_num_frames": 90, "fps": 9.0}, return_metadata=True)
    assert (plain.video_metadata[0].total_num_frames, plain.video_metadata[0].fps) == (90, 9.0)
    assert "video_metadata" not in processor(FRAMES)


@pytest.mark.parametrize(
    ("videos", "options", "error", "message"),
    [
        (FRAMES, {"num_frames": 4, "fps": 2}, ConfigError, "num_frames is 4 and fps is 2: give one of them"),
        (FRAMES, {"num_frames": 0}, ConfigError, "num_frames is 0; it must be a whole number, at least 1"),
        (FRAMES, {"fps": -1}, ConfigError, "fps is -1; it must be a positive number"),
        (FRAMES, {"fps": 2}, ValueError, "the frame rate of the video is not known: give it in video_metadata"),
        (FRAMES, {"num_frames": 4, "do_sample_frames": False}, ConfigError, "do_sample_frames is False, but"),
        (FRAMES, {"num_frmes": 4}, ConfigError, "unknown processor setting 'num_frmes': did you mean 'num_frames'"),
        ([["a.png", "b.png"]], {}, ValueError, "a list holds lists of paths: give one list of paths of videos"),
        (["a.mp4", FRAMES], {}, ValueError, "the list mixes paths and frames"),
        ("ftp://example.org/a.mp4", {}, VideoReadError, "addresses of the kind ftp:// are not read; give an http"),
        ("missing.mp4", {}, VideoReadError, r"missing\.mp4"),
        (
            FRAMES,
            {"num_frames": 4, "video_metadata": {"total_num_frames": 90}},
            ValueError,
            "says that video 0 has 90 frames, but 8 are given",
        ),
        (FRAMES, {"num_frames": 4, "video_metadata": [{}, {}]}, ValueError, "is for 2 videos, and 1 are given"),
        ([], {"num_frames": 4}, ValueError, "video 0 has no frames"),
    ],
)
def test_what_cannot_be_done_is_named(
    processor: VideoMAEVideoProcessor, videos: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        processor(videos, **options)


def test_unequal_lengths_are_named_with_the_counts(processor: VideoMAEVideoProcessor) -> None:
    with pytest.raises(ValueError, match="the videos have 8, 5 frames"):
        processor([FRAMES, FRAMES[:5]], return_tensors="pt")


def test_a_model_folder_gives_its_settings_and_its_sampling(classifier_folder: Path, video: Path) -> None:
    processor = VideoMAEVideoProcessor.from_pretrained(classifier_folder)
    assert processor.clip == CLIP  # from the folder's record
    assert processor.crop_size == {"height": 32, "width": 32}
    frames = read_clip(video, centre_clip(NUM_FRAMES, CLIP))
    wanted = VideoMAEImageProcessor.from_pretrained(classifier_folder)(frames, return_tensors="pt").pixel_values
    assert torch.equal(processor(video, return_tensors="pt").pixel_values, wanted)


def test_a_saved_processor_loads_to_the_same_and_wins_over_the_image_processors_file(
    classifier_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(classifier_folder, folder)
    processor = VideoMAEVideoProcessor(**SMALL, num_frames=6, do_sample_frames=True, clip=ClipConfig(8, 2))
    processor.extra = {"note": ["kept"]}
    processor.save_pretrained(folder)
    again = VideoMAEVideoProcessor.from_pretrained(folder)
    assert again.crop_size == {"height": 18, "width": 18}
    assert (again.num_frames, again.do_sample_frames, again.extra) == (6, True, {"note": ["kept"]})
    assert again.clip == CLIP, "the record of the model folder is what the model was trained with"
    processor.save_pretrained(tmp_path / "alone")
    alone = VideoMAEVideoProcessor.from_pretrained(tmp_path / "alone", fps=None, image_mean=0.25)
    assert alone.to_dict() == {**processor.to_dict(), "image_mean": 0.25}
    assert repr(again).startswith("VideoMAEVideoProcessor {")


def test_transformers_reads_the_file_and_this_reads_transformers(tmp_path: Path) -> None:
    values = {
        "crop_size": {"height": 18, "width": 18},
        "data_format": "channels_first",
        "default_to_square": False,
        "do_convert_rgb": True,
        "do_sample_frames": True,
        "image_mean": [0.485, 0.456, 0.406],
        "num_frames": 5,
        "return_metadata": False,
        "size": {"shortest_edge": 20},
        "video_processor_type": "VideoMAEVideoProcessor",
    }  # as transformers 5 writes it
    (tmp_path / VIDEO_PROCESSOR_FILE).write_text(json.dumps(values), encoding="utf-8")
    processor = VideoMAEVideoProcessor.from_pretrained(tmp_path)
    assert (processor.do_sample_frames, processor.num_frames, processor.fps) == (True, 5, None)
    assert processor.to_dict().items() >= values.items()
    AutoVideoProcessor = upstream("AutoVideoProcessor")
    processor.save_pretrained(tmp_path)
    theirs = AutoVideoProcessor.from_pretrained(tmp_path)
    assert (theirs.num_frames, theirs.size["shortest_edge"]) == (5, 20)


def test_files_of_other_families_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"video_preprocessor_config\.json or preprocessor_config\.json"):
        VideoMAEVideoProcessor.from_pretrained(tmp_path)
    (tmp_path / PROCESSOR_FILE).write_text('{"image_processor_type": "ViTImageProcessor"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json: image_processor_type is 'ViTImage"):
        VideoMAEVideoProcessor.from_pretrained(tmp_path)
    (tmp_path / VIDEO_PROCESSOR_FILE).write_text('{"video_processor_type": "X"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="video_processor_type is 'X'; this class reads VideoMAEVideoProcessor"):
        VideoMAEVideoProcessor.from_pretrained(tmp_path)
