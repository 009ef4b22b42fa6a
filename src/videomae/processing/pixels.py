"""The arithmetic between frames and pixel values: resize, crop, rescale, normalize, and the way back.

Works on tensors, on whatever device they are.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.errors import ConfigError

Size = int | Sequence[int] | Mapping[str, int]
PerChannel = float | Sequence[float]

# PIL's numbers for filters. PIL's nearest takes the pixel under the centre, which torch calls nearest-exact.
RESAMPLE_MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
EDGES = ("height", "width")
# Frames that are not in 0..255 although rescaling by 1/255 is on. A sharp filter may leave a frame of 0..255 a
# little below 0, but its bright parts then reach far beyond what normalized frames ever do; 16 bits exceed 1000.
LARGEST_SCALED, LARGEST_NORMALIZED, LARGEST_OVERSHOOT = 1.0, 10.0, 1000.0


@dataclass(frozen=True, kw_only=True)
class PixelSteps:
    """What is done to frames, in this order: resize, center crop, rescale, normalize.

    Raises:
        ConfigError: If a field is of the wrong type or out of range, or if mean and std do not match.
    """

    do_resize: bool
    """Whether to resize."""
    size: Mapping[str, int]
    """`shortest_edge`, or `height` and `width`, in pixels."""
    resample: int
    """Filter by PIL's number: 0 nearest, 2 bilinear, 3 bicubic; the latter two are anti-aliased."""
    do_center_crop: bool
    """Whether to cut out the centre."""
    crop_size: Mapping[str, int]
    """`height` and `width` in pixels."""
    do_rescale: bool
    """Whether to multiply by rescale_factor."""
    rescale_factor: float
    """A positive number."""
    do_normalize: bool
    """Whether to subtract image_mean and divide by image_std."""
    image_mean: float | tuple[float, ...]
    """One number, or one for each channel, on the scale after rescaling."""
    image_std: float | tuple[float, ...]
    """Like image_mean, positive."""

    def __post_init__(self) -> None:
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        if self.resample not in RESAMPLE_MODES or isinstance(self.resample, bool):
            raise ConfigError(
                f"resample is {self.resample!r}; choose PIL's number of a filter that torch has too: 0 (nearest), "
                "2 (bilinear) or 3 (bicubic)"
            )
        if set(self.crop_size) != set(EDGES):
            raise ConfigError(f"crop_size is {dict(self.crop_size)}; it needs 'height' and 'width'")
        for name, values, positive in (
            ("rescale_factor", self.rescale_factor, True),
            ("image_mean", self.image_mean, False),
            ("image_std", self.image_std, True),
        ):
            _check_numbers(name, values, positive=positive)
        if len({count for count in map(_count, (self.image_mean, self.image_std)) if count > 1}) > 1:
            raise ConfigError(
                f"image_mean {self.image_mean} and image_std {self.image_std} are for different numbers of channels: "
                "give both one value for each channel"
            )

    @property
    def num_channels(self) -> int | None:
        """C, where normalizing fixes it; None where any number of channels will do."""
        count = max(_count(self.image_mean), _count(self.image_std))
        return count if self.do_normalize and count > 1 else None

    @property
    def leaves_borders(self) -> bool:
        """Whether every frame comes out of resizing smaller than the crop, and so gets black borders."""
        if not (self.do_resize and self.do_center_crop):
            return False
        if "shortest_edge" in self.size:
            return self.size["shortest_edge"] < min(self.crop_size.values())
        return any(self.size[edge] < self.crop_size[edge] for edge in EDGES)

    def apply(self, frames: Tensor) -> Tensor:
        """Take frames of one shape through all steps.

        Args:
            frames: `[t, C, H, W]`, uint8 or float32. One channel is repeated to `num_channels`.

        Returns:
            `[t, C, h, w]` float32; with neither rescaling nor normalizing, of the dtype of `frames`.

        Raises:
            ValueError: If number of channels or range of the frames contradict the settings.
        """
        self._check_channels(frames.shape[1])
        self._check_range(frames)
        if self.do_resize:
            frames = resize(frames, output_size(frames.shape[-2], frames.shape[-1], self.size), self.resample)
        if self.do_center_crop:
            frames = center_crop(frames, self.crop_size["height"], self.crop_size["width"])
        frames = frames.contiguous()  # before the next line: a uint8 frame is a quarter of a float one
        if self.do_normalize:
            mean, std = self._mean_and_std(frames.device)
            return normalize(frames, mean, std, one=self._one)  # [t, C, h, w]; repeats a single channel
        return frames.to(torch.float32) * self.rescale_factor if self.do_rescale else frames

    def invert(self, pixel_values: Tensor) -> Tensor:
        """Undo rescaling and normalizing: `[..., C, H, W]` floats to uint8, rounded and clipped to 0..255.

        Raises:
            ValueError: If there is no rescaling, so that the range of the frames is not known.
        """
        if not self.do_rescale:
            raise ValueError(
                "do_rescale is False, so the range of the frames is not known: undo the scaling yourself"
            )
        values = pixel_values.to(torch.float32)
        if self.do_normalize:
            mean, std = (each.mul(self._one).view(-1, 1, 1) for each in self._mean_and_std(values.device))
            values = values * std + mean
        else:
            values = values / self.rescale_factor
        return values.round().clamp(0, 255).to(torch.uint8)

    @property
    def _one(self) -> float:
        """Value of the frames that rescaling makes 1."""
        return 1.0 / self.rescale_factor if self.do_rescale else 1.0

    def _mean_and_std(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device) for values in (self.image_mean, self.image_std)
        )
        return mean, std  # [C] or 0-d

    def _check_channels(self, num_channels: int) -> None:
        if num_channels != 1 and self.num_channels not in (None, num_channels):
            raise ValueError(
                f"the frames have {num_channels} channels and image_mean and image_std are for {self.num_channels}: "
                f"give frames of {self.num_channels} channels, or a mean and an std for {num_channels}"
            )

    def _check_range(self, frames: Tensor) -> None:
        if frames.dtype == torch.uint8:  # 0..255 by definition: nothing is read, the device is not waited for
            mean = max(self.image_mean) if isinstance(self.image_mean, tuple) else self.image_mean
            if self.do_normalize and not self.do_rescale and 0 < mean <= 1:
                raise ValueError(
                    f"do_rescale is False, but the frames are uint8 and image_mean {self.image_mean} is for 0..1: "
                    "leave do_rescale on, or give a mean and an std for 0..255"
                )
            return
        if not self.do_rescale or not math.isclose(self.rescale_factor, 1 / 255, rel_tol=1e-3):
            return
        low, high = (float(bound) for bound in frames.aminmax())
        largest = max(-low, high)
        text = (
            f"the frames go from {low:.4g} to {high:.4g}, but rescaling by 1/255 is for 0..255: give "
            "do_rescale=False if they are in 0..1, do_normalize=False too if they are normalized already, or "
            "else another rescale_factor"
        )
        if 0 < largest <= LARGEST_SCALED or largest > LARGEST_OVERSHOOT:
            raise ValueError(text)
        if low < 0 and largest <= LARGEST_NORMALIZED:
            # Only a warning: the published examples feed normal noise, and must run.
            warnings.warn(text, UserWarning, stacklevel=5)


def read_size(name: str, value: Size, *, square: bool) -> dict[str, int]:
    """Return a size as a dictionary, from any of the forms that transformers takes for VideoMAE.

    Args:
        name: What the size is called in messages.
        value: A number, `(height, width)`, or a dictionary with the keys returned.
        square: Whether a number stands for height and width; else for the shortest edge.

    Returns:
        `{"shortest_edge": n}` or `{"height": n, "width": n}`.

    Raises:
        ConfigError: If the value is of another form or not positive.
    """
    if isinstance(value, int):
        size = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, Mapping):
        size = dict(value)
    elif isinstance(value, Sequence) and len(value) == 2:
        size = dict(zip(EDGES, value, strict=True))
    else:
        size = {}
    known = set(size) == set(EDGES) or (set(size) == {"shortest_edge"} and not square)
    if not known or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size.values()):
        forms = "a (height, width) pair or {'height': h, 'width': w}"
        forms = f"a number for a square, {forms}" if square else f"a number or {{'shortest_edge': n}}, {forms}"
        raise ConfigError(f"{name} is {value!r}; give positive whole numbers of pixels, as {forms}")
    return size


def output_size(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    """Return height and width in pixels after resizing; the longer edge is rounded down, as transformers does."""
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    short = size["shortest_edge"]
    long = int(short * max(height, width) / min(height, width))
    return (long, short) if width <= height else (short, long)


def resize(frames: Tensor, size: tuple[int, int], resample: int) -> Tensor:
    """Resize frames, anti-aliased but for the nearest filter.

    Args:
        frames: `[t, C, H, W]`, uint8 or float32.
        size: Height and width in pixels.
        resample: A key of `RESAMPLE_MODES`.

    Returns:
        `[t, C, height, width]` of the same dtype. For uint8 the CPU computes in whole numbers, as PIL does; other
        devices, where torch has no such path, in float32, rounded: up to one grey level apart with bilinear.
    """
    if size == tuple(frames.shape[-2:]):
        return frames
    mode = RESAMPLE_MODES[resample]
    if mode == "nearest-exact":
        return F.interpolate(frames, size=size, mode=mode)
    if frames.dtype == torch.uint8 and frames.device.type != "cpu":
        return resize_in_float(frames, size, mode)
    return F.interpolate(frames, size=size, mode=mode, antialias=True)


def resize_in_float(frames: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize uint8 frames with float arithmetic: `resize` on devices for whose uint8 torch has no filter."""
    smooth = F.interpolate(frames.to(torch.float32), size=size, mode=mode, antialias=True)
    return smooth.round_().clamp_(0, 255).to(torch.uint8)


def normalize(frames: Tensor, mean: Tensor, std: Tensor, *, one: float = 255.0) -> Tensor:
    """Turn pixels into the floats that a model reads; runs on the device that the frames are on.

    Mean and std are brought to the scale of the frames, so that rescaling needs no pass of its own.

    Args:
        frames: `[..., C, H, W]`, uint8 or float32.
        mean: `[C]` or 0-d float32, of pixels scaled to [0, 1].
        std: Likewise.
        one: Value of the frames that is 1 on that scale.

    Returns:
        `[..., C, H, W]` float32: `(frames / one - mean) / std`.
    """
    return (frames - mean.mul(one).view(-1, 1, 1)).div_(std.mul(one).view(-1, 1, 1))


def center_crop(frames: Tensor, height: int, width: int) -> Tensor:
    """Cut out the centre; frames that are too small get black borders first.

    Args:
        frames: `[..., H, W]`.
        height: Height of the crop in pixels.
        width: Width of the crop in pixels.

    Returns:
        `[..., height, width]`. An odd row or column left over is cut off, or added, below and on the right.
    """
    rows, columns = max(0, height - frames.shape[-2]), max(0, width - frames.shape[-1])  # missing
    if rows or columns:
        left, top = columns // 2, rows // 2
        frames = F.pad(frames, (left, columns - left, top, rows - top))
    top, left = (frames.shape[-2] - height) // 2, (frames.shape[-1] - width) // 2
    return frames[..., top : top + height, left : left + width]


def _count(values: float | tuple[float, ...]) -> int:
    return len(values) if isinstance(values, tuple) else 1


def _check_numbers(name: str, values: float | tuple[float, ...], *, positive: bool) -> None:
    each = values if isinstance(values, tuple) else (values,)
    for value in each:
        sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not sound or (positive and value <= 0):
            kind = "a number above 0" if positive else "a number"
            many = "" if name == "rescale_factor" else ", or one for each channel"
            raise ConfigError(f"{name} is {values!r}; it must be {kind}{many}")
    if not each:
        raise ConfigError(f"{name} is empty; it must be a number, or one for each channel")
