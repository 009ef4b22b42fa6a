"""Forms of input: which are understood, as what, and what is said about the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.processing.frames import collect_videos

T, H, W = 4, 6, 8
HWC = np.arange(T * H * W * 3, dtype=np.uint8).reshape(T, H, W, 3)
CHW = np.ascontiguousarray(HWC.transpose(0, 3, 1, 2))
WANTED = torch.from_numpy(CHW)

ONE_VIDEO = {
    "array HWC": HWC,
    "array CHW": CHW,
    "tensor HWC": torch.from_numpy(HWC),
    "tensor CHW": WANTED,
    "arrays HWC": list(HWC),
    "arrays CHW": list(CHW),
    "tuple": tuple(HWC),
    "tensors CHW": list(WANTED),
    "PIL": [Image.fromarray(frame) for frame in HWC],
    "batch of one": HWC[None],
    "list of one array": [HWC],
    "list of one list": [list(HWC)],
    "PIL among arrays": [HWC[0], Image.fromarray(HWC[1]), *HWC[2:]],
}


def whole(runs: list[torch.Tensor]) -> torch.Tensor:
    """Return the frames of one video, `[T, C, H, W]`."""
    return torch.cat(runs)


@pytest.mark.parametrize("videos", ONE_VIDEO.values(), ids=ONE_VIDEO.keys())
def test_every_form_of_one_video_gives_the_same_frames(videos: Any) -> None:
    collected = collect_videos(videos)
    assert len(collected) == 1
    assert whole(collected[0]).dtype == torch.uint8
    assert torch.equal(whole(collected[0]), WANTED)


@pytest.mark.parametrize(
    "videos",
    [
        np.stack([HWC, HWC[::-1]]),
        torch.from_numpy(np.stack([CHW, CHW[::-1]])),
        [HWC, HWC[::-1]],
        [list(HWC), [Image.fromarray(frame) for frame in HWC[::-1]]],
        (list(CHW), tuple(CHW[::-1])),
    ],
    ids=["5-D array", "5-D tensor", "list of arrays", "list of lists", "tuple of lists"],
)
def test_every_form_of_a_batch_gives_the_same_videos(videos: Any) -> None:
    first, second = collect_videos(videos)
    assert torch.equal(whole(first), WANTED)
    assert torch.equal(whole(second), WANTED.flip(0))


@pytest.mark.parametrize("frame", [HWC[0], CHW[0], Image.fromarray(HWC[0]), WANTED[0]])
def test_a_single_frame_is_a_video_of_one_frame(frame: Any) -> None:
    ((run,),) = collect_videos(frame)
    assert torch.equal(run, WANTED[:1])


def test_a_video_in_one_tensor_is_not_copied() -> None:
    ((run,),) = collect_videos(WANTED)
    assert run.data_ptr() == WANTED.data_ptr()
    ((run,),) = collect_videos(HWC)
    assert run.data_ptr() == HWC.ctypes.data


def test_videos_of_several_resolutions_keep_them() -> None:
    (small,), (large,) = collect_videos([list(HWC), list(HWC.repeat(2, axis=1))])
    assert (small.shape, large.shape) == ((T, 3, H, W), (T, 3, 2 * H, W))


def test_frames_of_several_shapes_come_in_runs_of_equal_ones() -> None:
    (runs,) = collect_videos([HWC[0], HWC[1], CHW[2], HWC[3, :5], HWC[3, :5].astype(np.float32)])
    assert [tuple(run.shape) for run in runs] == [(2, 3, 6, 8), (1, 3, 6, 8), (1, 3, 5, 8), (1, 3, 5, 8)]
    assert torch.equal(torch.cat(runs[:2]), WANTED[:3])


def test_grey_frames_have_one_channel() -> None:
    grey = HWC[..., 0]
    wanted = torch.from_numpy(grey)[:, None]
    forms = [list(grey), [Image.fromarray(frame) for frame in grey], grey[..., None], grey[:, None], grey[0]]
    for videos in forms:
        ((run,),) = collect_videos(videos)
        assert torch.equal(run, wanted[: len(run)])


def test_pil_modes_become_rgb_or_grey() -> None:
    image = Image.fromarray(HWC[0])
    for mode in ("P", "CMYK", "YCbCr", "HSV", "LAB"):
        converted = image.convert(mode)
        ((run,),) = collect_videos(converted)
        assert torch.equal(run[0].permute(1, 2, 0), torch.from_numpy(np.array(converted.convert("RGB"))))
    ((run,),) = collect_videos(image.convert("1"))
    assert set(run.flatten().tolist()) == {0, 255}


def test_transparent_pil_images_are_refused_unless_four_channels_are_wanted() -> None:
    image = Image.fromarray(HWC[0]).convert("RGBA")
    with pytest.raises(ValueError, match=r'mode RGBA with transparency: decide .* frame\.convert\("RGB"\)'):
        collect_videos([image])
    ((run,),) = collect_videos([image], num_channels=4)
    assert run.shape == (1, 4, H, W)


def test_dtypes_become_uint8_where_nothing_is_lost_and_float32_elsewhere() -> None:
    for dtype in (np.int16, np.int32, np.int64, np.uint16):
        ((run,),) = collect_videos(HWC.astype(dtype))
        assert torch.equal(run, WANTED)
        assert run.dtype == torch.uint8
    for dtype in (np.float16, np.float32, np.float64):
        ((run,),) = collect_videos(HWC.astype(dtype))
        assert run.dtype == torch.float32
        assert torch.equal(run, WANTED.float())
    for wide in (HWC.astype(np.int32) - 1, HWC.astype(np.uint16) * 257):
        assert collect_videos(wide)[0][0].dtype == torch.float32
    assert collect_videos(WANTED.bfloat16())[0][0].dtype == torch.float32


@pytest.mark.filterwarnings("error")
def test_read_only_and_reversed_arrays_are_copied() -> None:
    frozen = HWC.copy()
    frozen.flags.writeable = False
    assert torch.equal(whole(collect_videos(frozen)[0]), WANTED)
    assert torch.equal(whole(collect_videos(HWC[::-1])[0]), WANTED.flip(0))


def test_channels_are_found_by_their_number() -> None:
    assert collect_videos(np.zeros((2, 3, 8, 4), np.uint8), num_channels=3)[0][0].shape == (2, 3, 8, 4)
    assert collect_videos(np.zeros((2, 3, 8, 4), np.uint8), num_channels=4)[0][0].shape == (2, 4, 3, 8)
    assert collect_videos(np.zeros((2, 6, 8, 7), np.uint8), num_channels=7)[0][0].shape == (2, 7, 6, 8)
    assert collect_videos(np.zeros((2, 6, 8, 1), np.uint8), num_channels=3)[0][0].shape == (2, 1, 6, 8)


def test_input_data_format_overrides_the_shape_but_not_pil() -> None:
    frames = np.zeros((2, 3, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"shape \[3, 8, 3\], and its first or its last .* give input_data_format"):
        collect_videos(frames)
    assert collect_videos(frames, input_data_format="channels_last")[0][0].shape == (2, 3, 3, 8)
    assert collect_videos(frames, input_data_format="channels_first")[0][0].shape == (2, 3, 8, 3)
    image = Image.fromarray(HWC[0])
    assert torch.equal(collect_videos(image, input_data_format="channels_first")[0][0], WANTED[:1])
    with pytest.raises(ValueError, match="input_data_format is 'HWC'; choose 'channels_first', 'channels_last'"):
        collect_videos(frames, input_data_format="HWC")


REFUSED = {
    "path": ("clip.mp4", r"'clip\.mp4' is a path, .* VideoMAEVideoProcessor, .* videomae\.VideoReader"),
    "Path": (Path("clip.mp4"), "is a path"),
    "paths": (["a.mp4", "b.mp4"], r"'a\.mp4' is a path"),
    "lists of paths": ([["a.mp4"]], r"'a\.mp4' is a path"),
    "nothing": ([], "there are no videos: give at least one frame"),
    "empty batch": (np.zeros((0, 4, 6, 8, 3), np.uint8), "there are no videos"),
    "empty list": ([[]], "video 0 has no frames"),
    "empty video": ([list(HWC), []], "video 1 has no frames"),
    "no frames": (np.zeros((0, 6, 8, 3), np.uint8), "video 0 has no frames"),
    "no pixels": (np.zeros((4, 0, 8, 3), np.uint8), r"shape \[4, 0, 8, 3\]: give a frame as"),
    "number": (3, "a int is no frame: a frame is a PIL image, a numpy array or a tensor"),
    "numbers": ([[1, 2], [3, 4]], "a int is no frame"),
    "one dimension": (np.zeros(5), r"shape \[5\]: give a frame as \[H, W, C\]"),
    "six dimensions": (np.zeros((1, 1, 2, 6, 8, 3)), r"shape \[1, 1, 2, 6, 8, 3\]"),
    "frames and videos": ([HWC[0], HWC], "the list mixes frames and videos of 4 dimensions"),
    "frames and lists": ([HWC[0], list(HWC)], "the list mixes frames and lists"),
    "batches": ([HWC[None]], "an item with 5 dimensions, a batch of its own"),
    "lists of videos": ([[HWC]], "a list of something else than frames"),
    "too deep": ([[list(HWC)]], "a list of something else than frames"),
    "C T H W": (np.zeros((3, 16, 6, 8), np.uint8), r"shape \[16, 6, 8\], in which neither end .*\[T, C, H, W\]"),
    "grey T H W": (np.zeros((16, 6, 8), np.uint8), "of grey frames with C = 1"),
    "booleans": (HWC > 3, "dtype bool: give integers in 0..255 or floats"),
    "boolean tensor": (WANTED > 3, r"dtype torch\.bool"),
    "complex": (HWC.astype(np.complex64), "dtype complex64"),
    "complex tensor": (WANTED.to(torch.complex64), r"dtype torch\.complex64"),
    "objects": (HWC.astype(object), "dtype object"),
}


@pytest.mark.parametrize(("videos", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_other_input_is_refused_by_name(videos: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        collect_videos(videos)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_pil_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from videomae.processing.image_processor import VideoMAEImageProcessor as P; "
        "P()(np.zeros((2, 8, 8, 3), np.uint8), return_tensors='pt'); print('PIL' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "False", result.stderr
