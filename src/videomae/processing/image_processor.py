"""Frames in, `pixel_values` out, and the way back: a drop-in for transformers' `VideoMAEImageProcessor`.

Resize, center crop, rescale, normalize, on whatever device the frames are; settings kept in
`preprocessor_config.json`. Where it differs from transformers: docs/processor.md.
"""

from __future__ import annotations

import difflib
import json
import os
import tempfile
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.errors import ConfigError
from videomae.processing.frames import Videos, collect_videos
from videomae.processing.pixels import PerChannel, PixelSteps, Size, read_size
from videomae.weights.json_files import read_json, write_json
from videomae.weights.settings_files import find_settings, split_hub_options
from videomae.weights.sources import PROCESSOR_FILE

# transformers' default for VideoMAE. Its published folders, and this package's training, have ImageNet's values.
DEFAULT_MEAN = DEFAULT_STD = (0.5, 0.5, 0.5)
DEFAULT_SIZE, DEFAULT_CROP = {"shortest_edge": 224}, {"height": 224, "width": 224}
FAMILY = frozenset(
    f"VideoMAE{kind}" for kind in ("ImageProcessor", "FeatureExtractor", "ImageProcessorFast", "ImageProcessorPil")
)
TYPE_KEYS = ("image_processor_type", "feature_extractor_type")
SETTINGS = (
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std"
).split()


class BatchFeature(UserDict[str, Any]):
    """What a processor returns: a dictionary, here of `pixel_values` alone, whose items are also attributes."""

    def __getattr__(self, name: str) -> Any:
        # "data" is the dictionary itself: while an object is unpickled it is asked for before it is there.
        if name == "data" or name not in self.data:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return self.data[name]

    def to(
        self,
        device: torch.device | torch.dtype | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        non_blocking: bool = False,
    ) -> Self:
        """Move every tensor to a device and cast the floating ones, in place; a dtype may also come first."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device

        def moved(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(moved(item) for item in value)
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype if value.is_floating_point() else None, non_blocking=non_blocking)

        self.data = {name: moved(value) for name, value in self.data.items()}
        return self


class VideoMAEImageProcessor:
    """Turns frames into the model's `pixel_values`: resize, center crop, rescale, normalize.

    Names and defaults are transformers'. Mind `image_mean` and `image_std`: the default is 0.5, while published
    folders and the models that this package trains have ImageNet's values in their `preprocessor_config.json`;
    take the processor from the model's folder with `from_pretrained`.

    Args:
        do_resize: Whether to resize.
        size: Size to resize to in pixels: a number or `{"shortest_edge": number}` keeps the aspect ratio,
            `(height, width)` or `{"height": h, "width": w}` does not. Default 224 for the shortest edge.
        resample: Filter by PIL's number: 0 nearest, 2 bilinear, 3 bicubic; the latter two anti-aliased.
        do_center_crop: Whether to cut out the centre; smaller frames get black borders.
        crop_size: Size of the crop: a number for a square, `(height, width)`, or a dictionary of the two. Default
            224.
        do_rescale: Whether to multiply by `rescale_factor`; False for floats already in 0..1.
        rescale_factor: A positive number.
        do_normalize: Whether to subtract `image_mean` and divide by `image_std`.
        image_mean: One number, or one for each channel, on the scale after rescaling.
        image_std: Like `image_mean`, positive.

    Raises:
        ConfigError: If a setting is out of range, or `size` is smaller than a `crop_size` that is not given.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]
    file_name: ClassVar[str] = PROCESSOR_FILE

    def __init__(
        self,
        *,
        do_resize: bool = True,
        size: Size | None = None,
        resample: int = 2,
        do_center_crop: bool = True,
        crop_size: Size | None = None,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: PerChannel | None = None,
        image_std: PerChannel | None = None,
    ) -> None:
        self.do_resize = do_resize
        self.size = read_size("size", DEFAULT_SIZE if size is None else size, square=False)
        self.resample = resample
        self.do_center_crop = do_center_crop
        self.crop_size = read_size("crop_size", DEFAULT_CROP if crop_size is None else crop_size, square=True)
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = _per_channel(DEFAULT_MEAN if image_mean is None else image_mean)
        self.image_std = _per_channel(DEFAULT_STD if image_std is None else image_std)
        self.extra: dict[str, Any] = {}  # what a file holds besides: written back, never acted on
        self._steps(crop_chosen=crop_size is not None)

    def __call__(self, videos: Videos | None = None, *, images: Videos | None = None, **options: Any) -> BatchFeature:
        """Return `preprocess(videos, **options)`; `images` is transformers' name for `videos`."""
        given = [one for one in (videos, images) if one is not None]
        if len(given) != 1:
            raise TypeError(f"videos is given {len(given)} times: give it once, as videos or as images")
        return self.preprocess(given[0], **options)

    def preprocess(
        self,
        videos: Videos,
        *,
        return_tensors: str | None = None,
        input_data_format: str | None = None,
        data_format: str | None = None,
        device: torch.device | str | None = None,
        **settings: Any,
    ) -> BatchFeature:
        """Turn one video or a batch of videos into pixel values.

        Args:
            videos: Frames in any form that `processing.frames.collect_videos` takes: uint8, integers in 0..255,
                or floats, in 0..255 or, with `do_rescale=False`, on any scale. Videos may differ in resolution.
            return_tensors: "pt", "np", or None for a list.
            input_data_format: "channels_first" or "channels_last"; None: judged from the shape.
            data_format: "channels_first" or None, the only layout of the result.
            device: Where to compute; None: where the frames are.
            **settings: Settings that differ for this call.

        Returns:
            `pixel_values`: float32 `[B, T, C, H, W]`, or a list of `[T, C, H, W]` tensors where `return_tensors` is
            None. Frames of one channel are repeated to as many as `image_mean` has. With neither rescaling nor
            normalizing, uint8 frames stay uint8.

        Raises:
            ConfigError: If a setting is unknown or out of range.
            ValueError: If the videos cannot be used, or differ in a way that no single tensor can hold.
        """
        wanted = getattr(return_tensors, "value", return_tensors)  # transformers has an enum for it
        if wanted not in (None, "pt", "np"):
            raise ValueError(f"return_tensors is {wanted!r}; choose 'pt', 'np' or None")
        if getattr(data_format, "value", data_format) not in (None, "channels_first"):
            raise ValueError(f"data_format is {data_format!r}; pixel values are always 'channels_first'")
        steps = self.from_dict(self.to_dict(), **settings)._steps()
        processed = []
        for number, runs in enumerate(
            collect_videos(videos, num_channels=steps.num_channels, input_data_format=input_data_format)
        ):
            parts = [steps.apply(run.to(device)) for run in runs]
            if len({part.shape[1:] for part in parts}) > 1:
                raise ValueError(f"the frames of video {number} {_differ([list(part.shape[1:]) for part in parts])}")
            processed.append(parts[0] if len(parts) == 1 else torch.cat(parts))  # [T, C, H, W]
        return BatchFeature({"pixel_values": processed if wanted is None else _batch(processed, wanted)})

    def frame_steps(self, **settings: Any) -> Callable[[Tensor], Tensor]:
        """Return what `preprocess` does to frames of one shape, with the settings checked once for many calls.

        Args:
            **settings: Settings that differ for these calls.

        Returns:
            Takes `[t, C, H, W]` frames, uint8 or float32, and returns `[t, C, h, w]`; see `PixelSteps.apply`.

        Raises:
            ConfigError: If a setting is unknown or out of range.
        """
        return self.from_dict(self.to_dict(), **settings)._steps().apply

    def inverse(self, pixel_values: Tensor | NDArray[Any]) -> Tensor:
        """Undo rescaling and normalizing: from pixel values to frames that can be looked at.

        Args:
            pixel_values: `[..., C, H, W]`, floats: pixel values, or a prediction of them.

        Returns:
            uint8 frames of the same shape, on the same device; exactly the resized and cropped frames where
            `pixel_values` (float32) came from uint8 frames. Values out of range are clipped.

        Raises:
            ValueError: If this processor does not rescale, and so was never told the range of the frames.
        """
        return self._steps().invert(torch.as_tensor(pixel_values))

    def _steps(self, *, crop_chosen: bool = True) -> PixelSteps:
        """Check the settings, which a caller may have assigned to, and return them for work."""
        steps = PixelSteps(
            do_resize=self.do_resize,
            size=read_size("size", self.size, square=False),
            resample=self.resample,
            do_center_crop=self.do_center_crop,
            crop_size=read_size("crop_size", self.crop_size, square=True),
            do_rescale=self.do_rescale,
            rescale_factor=self.rescale_factor,
            do_normalize=self.do_normalize,
            image_mean=_per_channel(self.image_mean),
            image_std=_per_channel(self.image_std),
        )
        if steps.leaves_borders and not crop_chosen:
            raise ConfigError(
                f"size is {self.size}, smaller than crop_size {self.crop_size}, which is left as it was: all frames "
                "would get black borders; give crop_size too"
            )
        return steps

    @classmethod
    def from_pretrained(cls, source: str | Path, **settings: Any) -> Self:
        """Read the processor of a model folder, this package's or transformers' of any version.

        Args:
            source: A folder with `preprocessor_config.json`, such a file, or `owner/name` on the Hub.
            **settings: Settings that differ from the file's; about the Hub, huggingface_hub's `revision`, `token`,
                `cache_dir`, `local_files_only`, `force_download`, `subfolder`.

        Raises:
            WeightsError: If the file is missing or is no JSON object.
            ConfigError: If it is for another family of models, or a setting is unknown or out of range.
        """
        hub, settings = split_hub_options(settings)
        files = find_settings(source, (PROCESSOR_FILE,), hub=hub)
        return cls._from_values(read_json(files.settings), settings, files.settings)

    @classmethod
    def _from_values(cls, values: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> Self:
        """Build a processor from a file's contents; errors name the file."""
        try:
            return cls.from_dict(values, **settings)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the settings into a folder, as `file_name`, atomically; transformers reads them too.

        Args:
            save_directory: Made if it is missing.

        Raises:
            WeightsError: If the folder cannot be made or written to.
        """
        write_json(Path(save_directory) / self.file_name, self.to_dict())

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json_string` to a file."""
        Path(path).write_text(self.to_json_string(), encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload a VideoMAE processor",
    ) -> str:
        """Upload the settings, as `file_name`; see `VideoMAEPreTrainedModel.push_to_hub`.

        Returns:
            The address of the commit.

        Raises:
            WeightsError: If the name is none, or the Hub refuses or cannot be reached.
        """
        from videomae.weights.hub import create_repository, upload_folder

        with tempfile.TemporaryDirectory() as name:
            self.save_pretrained(name)
            repo_id = create_repository(repo_id, private=private, token=token)
            return upload_folder(Path(name), repo_id, (self.file_name,), token=token, commit_message=commit_message)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **settings: Any) -> Self:
        """Build a processor from the contents of a `preprocessor_config.json`; `settings` win.

        Keys that are no setting are kept in `extra` and written back by `to_dict`. A file whose `size` is a plain
        number, without `crop_size`, is of the first feature extractor, which cropped to `size`.

        Raises:
            ConfigError: If the values are for another family of models, or a setting is unknown or out of range.
        """
        for key in TYPE_KEYS:
            if values.get(key) not in (None, *FAMILY):
                raise ConfigError(f"{key} is {values[key]!r}; this class reads {', '.join(sorted(FAMILY))}")
        refuse_unknown(settings, SETTINGS)
        settings = {name: value for name, value in settings.items() if value is not None}
        own = {name: values[name] for name in SETTINGS if values.get(name) is not None}
        if "crop_size" not in own and not isinstance(own.get("size", {}), Mapping):
            own["crop_size"] = own["size"]
        processor = cls(**{**own, **settings})
        processor._steps(crop_chosen="size" not in settings or "crop_size" in settings)
        processor.extra = {
            key: value for key, value in values.items() if key not in (*SETTINGS, *TYPE_KEYS, "processor_class")
        }
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as transformers writes them, and what the file held besides."""
        values = {**self.extra, **{name: getattr(self, name) for name in SETTINGS}}
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
            elif isinstance(value, dict):
                values[name] = dict(value)
        return {**values, "image_processor_type": VideoMAEImageProcessor.__name__}

    def to_json_string(self) -> str:
        """Return `to_dict` as JSON text, keys sorted."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


VideoMAEFeatureExtractor = VideoMAEImageProcessor  # the name before transformers 5


def refuse_unknown(settings: Iterable[str], known: Sequence[str], *, kind: str = "processor setting") -> None:
    """Raise ConfigError, with the nearest name, if a setting is none of the known ones."""
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
            raise ConfigError(f"unknown {kind} {name!r}: {hint}")


def _per_channel(value: PerChannel) -> float | tuple[float, ...]:
    return tuple(value) if isinstance(value, Sequence) else value


def _differ(sizes: Sequence[object]) -> str:
    return f"differ in size, {' and '.join(sorted({str(one) for one in sizes}))}: resize and crop them to one size"


def _batch(videos: list[Tensor], kind: str) -> Tensor | NDArray[Any]:
    """Put videos `[T, C, H, W]` of one shape into one tensor or array, `[B, T, C, H, W]`."""
    counts = [video.shape[0] for video in videos]
    if len(set(counts)) > 1:
        raise ValueError(
            f"the videos have {', '.join(map(str, counts))} frames, which one tensor cannot hold: give equal "
            "numbers, or leave return_tensors out for a list"
        )
    if len({video.shape for video in videos}) > 1:
        raise ValueError(f"the videos {_differ([list(video.shape[1:]) for video in videos])}")
    batch = videos[0][None] if len(videos) == 1 else torch.stack(videos)  # one video is not copied
    return batch if kind == "pt" else batch.detach().cpu().numpy()
