"""The processor beside transformers' own, live; then what this one does differently, and its files.

transformers has two classes behind one name. `VideoMAEImageProcessorPil` needs no torchvision and is compared with
wherever transformers is installed; the torchvision class only where that package is, too, so not in this project's
own environment. Files on disk: test_settings_files.py.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.errors import ConfigError
from videomae.processing.image_processor import (
    PROCESSOR_FILE,
    BatchFeature,
    VideoMAEFeatureExtractor,
    VideoMAEImageProcessor,
)

NUM_FRAMES = 10
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SMALL = {"size": {"shortest_edge": 18}, "crop_size": {"height": 18, "width": 18}}
BLACK = -1.0  # what black becomes with mean and std 0.5
BACKENDS = ["pil", "torchvision"] if importlib.util.find_spec("torchvision") else ["pil"]


@pytest.fixture(scope="module", params=BACKENDS)
def upstream(request: pytest.FixtureRequest) -> Any:
    """Return transformers' class."""
    pytest.importorskip("transformers", reason="transformers is not installed: nothing to compare with")
    if request.param == "torchvision":
        from transformers import VideoMAEImageProcessor as Upstream

        return Upstream
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    return VideoMAEImageProcessorPil


def video(height: int = 24, width: int = 34, num_frames: int = NUM_FRAMES, seed: int = 0) -> np.ndarray:
    """Return uint8 noise, `[T, H, W, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def assert_within_one_level(ours: Any, theirs: Any, std: float = 0.5, factor: float = 1 / 255) -> None:
    """Compare pixel values: PIL and torch round differently after a filter."""
    ours, theirs = torch.as_tensor(ours), torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max() <= 1.001 * factor / std


FRAMES = video()
CHW = np.ascontiguousarray(FRAMES.transpose(0, 3, 1, 2))
PIL_FRAMES = [Image.fromarray(frame) for frame in FRAMES]
INPUTS: dict[str, Any] = {
    "HWC arrays": list(FRAMES),
    "CHW arrays": list(CHW),
    "PIL": PIL_FRAMES,
    "CHW tensors": list(torch.from_numpy(CHW)),
    "HWC array": FRAMES,
    "CHW array": CHW,
    "tensor": torch.from_numpy(CHW),
    "batch of lists": [list(FRAMES), list(FRAMES[::-1])],
    "batch of arrays": [FRAMES, FRAMES[::-1].copy()],
    "batch of tensors": [torch.from_numpy(CHW), torch.from_numpy(CHW)],
    "batch of PIL": [PIL_FRAMES, PIL_FRAMES[::-1]],
    "resolutions": [list(FRAMES), list(video(60, 20, seed=1)), list(video(18, 18, seed=2))],
    "one frame": FRAMES[0],
    "one PIL frame": PIL_FRAMES[0],
    "frames of several shapes": [FRAMES[0], FRAMES[1], FRAMES[2, :20], FRAMES[3]],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "small": SMALL,
    "ImageNet": {**SMALL, **IMAGENET},
    "pair": {"size": {"height": 20, "width": 22}, "crop_size": {"height": 10, "width": 14}},
    "number": {"size": 20, "crop_size": 12},
    "no crop": {"size": 20, "do_center_crop": False},
    "no resize": {"do_resize": False, "crop_size": 16},
    "borders": {"size": 20, "crop_size": {"height": 24, "width": 40}},  # an even number of black rows and columns
    "borders and cut": {"do_resize": False, "crop_size": {"height": 28, "width": 18}},
    "not rescaled": {**SMALL, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
    "not normalised": {**SMALL, "do_normalize": False},
    "one mean": {**SMALL, "image_mean": 0.45, "image_std": 0.225},
    "bicubic": {**SMALL, "resample": 3},
    "factor": {**SMALL, "rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 1.0},
}


@pytest.mark.parametrize("videos", INPUTS.values(), ids=INPUTS.keys())
def test_every_form_of_input_gives_what_transformers_gives(upstream: Any, videos: Any) -> None:
    ours = VideoMAEImageProcessor(**SMALL)(videos, return_tensors="pt")
    assert_within_one_level(ours.pixel_values, upstream(**SMALL)(videos, return_tensors="pt").pixel_values)
    assert ours.pixel_values.is_contiguous()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_setting_does_what_it_does_in_transformers(upstream: Any, settings: dict[str, Any]) -> None:
    ours, theirs = VideoMAEImageProcessor(**settings), upstream(**settings)
    wanted = theirs(list(FRAMES), return_tensors="np").pixel_values
    if settings.get("do_normalize", True):
        std = float(np.min(settings.get("image_std", 0.5)))
    else:
        std = 1.0
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    assert_within_one_level(ours(FRAMES, return_tensors="np").pixel_values, wanted, std, factor)
    assert_within_one_level(
        VideoMAEImageProcessor()(FRAMES, return_tensors="np", **{"crop_size": 224, **settings}).pixel_values,
        wanted,
        std,
        factor,
    )


def test_frames_already_in_0_to_1_go_through_without_rescaling_as_in_transformers(upstream: Any) -> None:
    scaled = list((FRAMES / 255).astype(np.float32))
    ours = VideoMAEImageProcessor(**SMALL, do_rescale=False)(scaled, return_tensors="pt").pixel_values
    theirs = upstream(**SMALL, do_rescale=False)(scaled, return_tensors="pt").pixel_values
    assert_within_one_level(ours, theirs)
    assert_within_one_level(ours, VideoMAEImageProcessor(**SMALL)(FRAMES, return_tensors="pt").pixel_values)


def test_four_channels_go_through_as_in_transformers(upstream: Any) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 4, 24, 34), dtype=np.uint8))
    options = {"image_mean": [0.0] * 4, "image_std": [1.0] * 4, "input_data_format": "channels_first"}
    ours = VideoMAEImageProcessor(**SMALL)
    assert ours(frames, return_tensors="pt", **options).pixel_values.shape == (1, 4, 4, 18, 18)
    options["do_resize"] = False  # PIL takes the fourth channel for opacity and weights the colours by it
    theirs = upstream(**SMALL)(frames, return_tensors="pt", **options).pixel_values
    assert_within_one_level(ours(frames, return_tensors="pt", **options).pixel_values, theirs, std=1.0)


def test_default_settings_and_their_json_are_those_of_transformers(upstream: Any) -> None:
    assert VideoMAEImageProcessor().to_dict() == json.loads(upstream().to_json_string())
    assert VideoMAEImageProcessor().to_json_string() == upstream().to_json_string()
    ours, theirs = VideoMAEImageProcessor(**SMALL, **IMAGENET), upstream(**SMALL, **IMAGENET)
    assert ours.to_json_string() == theirs.to_json_string()
    assert (ours.size, ours.image_mean) == (theirs.size, theirs.image_mean)


def test_transformers_reads_our_file_and_does_the_same(upstream: Any, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    ours = VideoMAEImageProcessor(**SMALL, **IMAGENET)
    ours.save_pretrained(tmp_path)
    wanted = ours(FRAMES, return_tensors="pt").pixel_values
    for theirs in (upstream.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert theirs.to_json_string() == ours.to_json_string()
        assert_within_one_level(wanted, theirs(list(FRAMES), return_tensors="pt").pixel_values, std=0.224)


def test_we_read_the_file_of_transformers(upstream: Any, tmp_path: Path) -> None:
    theirs = upstream(**SMALL, **IMAGENET)
    theirs.save_pretrained(tmp_path)
    for source in (tmp_path, str(tmp_path), tmp_path / PROCESSOR_FILE):
        assert VideoMAEImageProcessor.from_pretrained(source).to_json_string() == theirs.to_json_string()


def test_the_enums_of_transformers_are_understood() -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: nothing to compare with"
    )
    from transformers.image_utils import ChannelDimension, PILImageResampling

    ours = VideoMAEImageProcessor(**SMALL, resample=PILImageResampling.BILINEAR)
    wanted = ours(CHW, return_tensors="np").pixel_values
    given = ours(CHW, return_tensors=transformers.TensorType.NUMPY, input_data_format=ChannelDimension.FIRST)
    assert np.array_equal(given.pixel_values, wanted)
    assert ours(CHW, data_format=ChannelDimension.FIRST).keys() == {"pixel_values"}
    assert json.loads(ours.to_json_string())["resample"] == 2


# From here on without transformers.


def test_defaults_are_those_documented() -> None:
    values = VideoMAEImageProcessor()(np.zeros((2, 240, 320, 3), np.uint8), return_tensors="pt").pixel_values
    assert values.shape == (1, 2, 3, 224, 224)
    assert values.dtype == torch.float32
    assert values.unique().tolist() == [BLACK]


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_a_batch_in_one_array_equals_its_videos_one_by_one(kind: str) -> None:
    batch = np.stack([FRAMES, video(seed=1)])
    processor = VideoMAEImageProcessor(**SMALL)
    together = processor(torch.from_numpy(batch) if kind == "tensor" else batch, return_tensors="pt").pixel_values
    apart = [processor(one, return_tensors="pt").pixel_values for one in batch]
    assert torch.equal(together, torch.cat(apart))


def test_without_return_tensors_a_list_of_videos_comes_back() -> None:
    processor = VideoMAEImageProcessor(**SMALL)
    listed = processor([FRAMES, FRAMES[:3]])["pixel_values"]
    assert [tuple(one.shape) for one in listed] == [(10, 3, 18, 18), (3, 3, 18, 18)]
    assert torch.equal(listed[0], processor(FRAMES, return_tensors="pt").pixel_values[0])
    array = processor(FRAMES, return_tensors="np").pixel_values
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array[0], listed[0].numpy())


def test_videos_that_one_tensor_cannot_hold_are_refused() -> None:
    processor = VideoMAEImageProcessor(**SMALL)
    for kind in ("pt", "np"):
        with pytest.raises(
            ValueError, match="the videos have 10, 3 frames, which one tensor cannot hold: give equal"
        ):
            processor([FRAMES, FRAMES[:3]], return_tensors=kind)
    wide = video(24, 60)
    with pytest.raises(ValueError, match=r"the videos differ in size, \[3, 18, 25\] and \[3, 18, 45\]: resize and"):
        processor([FRAMES, wide], return_tensors="pt", do_center_crop=False)
    with pytest.raises(ValueError, match=r"the frames of video 1 differ in size, \[3, 18, 25\] and \[3, 18, 45\]"):
        processor([list(FRAMES), [FRAMES[0], wide[0]]], do_center_crop=False)
    assert len(processor([FRAMES, wide], do_center_crop=False).pixel_values) == 2


def test_grey_frames_are_repeated_to_the_channels_of_the_mean() -> None:
    grey = FRAMES[..., 0]
    processor = VideoMAEImageProcessor(**SMALL, **IMAGENET)
    wanted = processor(grey[..., None].repeat(3, axis=-1), return_tensors="pt").pixel_values
    for frames in (list(grey), [Image.fromarray(frame) for frame in grey], grey[:, None]):
        assert torch.equal(processor(frames, return_tensors="pt").pixel_values, wanted)


def test_dark_floats_are_refused_not_made_black() -> None:
    with pytest.raises(ValueError, match=r"the frames go from .* to 1, .* do_rescale=False if they are in 0\.\.1"):
        VideoMAEImageProcessor(**SMALL)(FRAMES / 255)


def test_frames_stay_on_their_device_and_uint8_is_never_waited_for() -> None:
    # Tensors on "meta" have no values: one read, or one copy to the CPU, would raise.
    frames = torch.empty(2, 4, 3, 48, 64, dtype=torch.uint8, device="meta")
    processor = VideoMAEImageProcessor(**SMALL)
    values = processor(frames, return_tensors="pt").pixel_values
    assert values.device.type == "meta"
    assert (values.shape, values.dtype) == ((2, 4, 3, 18, 18), torch.float32)
    assert processor.inverse(values).device.type == "meta"
    assert processor(FRAMES, device="meta", return_tensors="pt").pixel_values.device.type == "meta"


def test_inverse_gives_the_cropped_frames_back_exactly() -> None:
    for settings in (SMALL, {**SMALL, **IMAGENET}, {**SMALL, "do_normalize": False}):
        processor = VideoMAEImageProcessor(**settings)
        cropped = processor(FRAMES, return_tensors="pt", do_rescale=False, do_normalize=False).pixel_values
        assert cropped.dtype == torch.uint8
        values = processor(FRAMES, return_tensors="pt").pixel_values
        assert torch.equal(processor.inverse(values), cropped)
        assert torch.equal(processor.inverse(values.numpy()), cropped)
    with pytest.raises(ValueError, match="do_rescale is False"):
        VideoMAEImageProcessor(do_rescale=False).inverse(values)


def test_settings_of_one_call_do_not_stay() -> None:
    processor = VideoMAEImageProcessor(**SMALL)
    before = processor.to_dict()
    assert processor(FRAMES, return_tensors="pt", size=30, crop_size=20).pixel_values.shape[-2:] == (20, 20)
    assert processor(FRAMES, return_tensors="pt", do_resize=None).pixel_values.shape[-2:] == (18, 18)
    assert processor.to_dict() == before


def test_assigned_settings_are_used_and_checked_at_the_call() -> None:
    processor = VideoMAEImageProcessor(**SMALL)
    processor.crop_size = 12  # type: ignore[assignment]  # as transformers' users do
    assert processor(FRAMES, return_tensors="pt").pixel_values.shape[-2:] == (12, 12)
    processor.do_resize = "no"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="do_resize is 'no'; it must be true or false"):
        processor(FRAMES)


def test_unknown_settings_are_refused_with_the_nearest() -> None:
    processor = VideoMAEImageProcessor()
    with pytest.raises(ConfigError, match="unknown processor setting 'do_resise': did you mean 'do_resize'"):
        processor(FRAMES, do_resise=False)
    with pytest.raises(ConfigError, match="unknown processor setting 'fps': choose from do_resize, size, "):
        VideoMAEImageProcessor.from_dict({}, fps=3)
    with pytest.raises(TypeError, match="do_resise"):
        VideoMAEImageProcessor(do_resise=False)  # type: ignore[call-arg]


def test_a_size_below_a_crop_that_was_left_alone_is_refused() -> None:
    message = r"size is .*112.*, smaller than crop_size .*224.*, which is left as it was: .* give crop_size too"
    with pytest.raises(ConfigError, match=message):
        VideoMAEImageProcessor(size=112)
    with pytest.raises(ConfigError, match=message):
        VideoMAEImageProcessor(size={"height": 300, "width": 112})
    with pytest.raises(ConfigError, match=message):
        VideoMAEImageProcessor()(FRAMES, size=112)
    VideoMAEImageProcessor(size=112, do_center_crop=False)
    VideoMAEImageProcessor(size=256)
    values = VideoMAEImageProcessor(size=112, crop_size=224)(FRAMES, return_tensors="pt").pixel_values
    assert values[..., :56, :].unique().tolist() == [BLACK]  # asked for, so given


def test_wrong_options_are_refused() -> None:
    processor = VideoMAEImageProcessor()
    with pytest.raises(ValueError, match="return_tensors is 'tf'; choose 'pt', 'np' or None"):
        processor(FRAMES, return_tensors="tf")
    with pytest.raises(ValueError, match="data_format is 'channels_last'; pixel values are always 'channels_first'"):
        processor(FRAMES, data_format="channels_last")
    with pytest.raises(TypeError, match="videos is given 0 times: give it once, as videos or as images"):
        processor()
    with pytest.raises(TypeError, match="videos is given 2 times"):
        processor(FRAMES, images=FRAMES)
    with pytest.raises(ValueError, match=r"'clip\.mp4' is a path"):
        processor("clip.mp4")  # type: ignore[arg-type]


def test_videos_may_be_named_as_transformers_names_them() -> None:
    processor = VideoMAEImageProcessor(**SMALL)
    wanted = processor(FRAMES, return_tensors="pt").pixel_values
    assert torch.equal(processor(images=FRAMES, return_tensors="pt").pixel_values, wanted)
    assert torch.equal(processor(videos=FRAMES, return_tensors="pt").pixel_values, wanted)
    assert torch.equal(processor.preprocess(FRAMES, return_tensors="pt").pixel_values, wanted)


def test_the_old_name_is_the_same_class() -> None:
    assert VideoMAEFeatureExtractor is VideoMAEImageProcessor
    assert VideoMAEFeatureExtractor.model_input_names == ["pixel_values"]


def test_the_result_is_a_dictionary_with_attributes() -> None:
    result = VideoMAEImageProcessor(**SMALL)(FRAMES, return_tensors="pt")
    assert isinstance(result, Mapping)
    assert list(result) == list(result.keys()) == ["pixel_values"]
    assert {**result}["pixel_values"] is result["pixel_values"] is result.pixel_values
    assert (lambda pixel_values: pixel_values)(**result) is result.pixel_values
    with pytest.raises(AttributeError, match="BatchFeature has no 'labels'"):
        result.labels  # noqa: B018
    result["labels"] = torch.tensor([3])
    assert result.labels.item() == 3
    again = pickle.loads(pickle.dumps(result))
    assert torch.equal(again.pixel_values, result.pixel_values)


def test_the_result_moves_and_casts_its_floats() -> None:
    result = BatchFeature(
        {"pixel_values": [torch.zeros(2), torch.zeros(1)], "labels": torch.tensor([3]), "name": "a"}
    )
    assert result.to(torch.bfloat16) is result
    assert [one.dtype for one in result.pixel_values] == [torch.bfloat16, torch.bfloat16]
    assert result.labels.dtype == torch.int64
    result.to("meta", torch.float16, non_blocking=True)
    assert (result.pixel_values[0].device.type, result.pixel_values[0].dtype) == ("meta", torch.float16)
    assert (result.labels.device.type, result.labels.dtype) == ("meta", torch.int64)
    assert result.name == "a"
    result.to(device="meta", dtype=torch.float32)
    assert result.pixel_values[1].dtype == torch.float32
