"""Video files or frames in, `pixel_values` out: a drop-in for transformers' `VideoMAEVideoProcessor`.

The image processor's arithmetic, and before it decoding and the choice of frames. Where it differs from transformers:
docs/processor.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from videomae.compat.inputs import (
    Sampling,
    VideoMetadata,
    check_counts,
    listed_paths,
    read_video,
    sample_videos,
)
from videomae.errors import ConfigError
from videomae.processing.frames import CHANNELS_FIRST, CHANNELS_LAST, Videos
from videomae.processing.image_processor import SETTINGS, BatchFeature, VideoMAEImageProcessor, refuse_unknown
from videomae.sharing.record import ModelRecord, read_record, sampling_from
from videomae.video.sampling import ClipConfig
from videomae.weights.json_files import read_json
from videomae.weights.settings_files import find_settings, split_hub_options
from videomae.weights.sources import PROCESSOR_FILE, RECORD_FILE

VIDEO_PROCESSOR_FILE = "video_preprocessor_config.json"
TYPE_KEY = "video_processor_type"
SAMPLING = ("do_sample_frames", "num_frames", "fps")
OWN_SETTINGS = (*SAMPLING, "do_convert_rgb")
NO_STEPS: dict[str, Any] = {
    name: False for name in SETTINGS if name.startswith("do_")
}  # of pixel values, which have had them all

FilePath: TypeAlias = str | os.PathLike[str]
VideoInput: TypeAlias = "Videos | FilePath | Sequence[FilePath]"


class VideoMAEVideoProcessor(VideoMAEImageProcessor):
    """Turns video files, or frames, into the model's `pixel_values`.

    A file, if the call says nothing of sampling, gives the clip that `Predictor` and the pipeline classify: the
    middle of the video, sampled as `clip`, which `from_pretrained` reads from the model folder's `videomae.json`.
    `do_sample_frames=False` in the call gives every frame.

    Args:
        do_sample_frames: Whether videos given as frames are sampled too.
        num_frames: Take so many frames, evenly spaced over the whole video.
        fps: Take so many frames for each second, evenly spaced; not together with `num_frames`.
        do_convert_rgb: Kept for transformers; frames get the channels of `image_mean` either way.
        clip: How videos are sampled where neither `num_frames` nor `fps` is given.
        **settings: Those of `VideoMAEImageProcessor`.

    Raises:
        ConfigError: If a setting is unknown, out of range, or contradicts another.
    """

    file_name: ClassVar[str] = VIDEO_PROCESSOR_FILE

    def __init__(
        self,
        *,
        do_sample_frames: bool = False,
        num_frames: int | None = None,
        fps: float | None = None,
        do_convert_rgb: bool = True,
        clip: ClipConfig | None = None,
        **settings: Any,
    ) -> None:
        refuse_unknown(settings, (*SETTINGS, *OWN_SETTINGS, "clip"))
        super().__init__(**settings)
        self.do_sample_frames = do_sample_frames
        self.num_frames = num_frames
        self.fps = fps
        self.do_convert_rgb = do_convert_rgb
        self.clip = clip
        for name in ("do_sample_frames", "do_convert_rgb"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        check_counts(num_frames, fps)

    def __call__(self, videos: Any = None, *, images: Any = None, **options: Any) -> BatchFeature:
        """Return `preprocess(videos, **options)`; `images` is another name for `videos`."""
        return super().__call__(videos, images=images, **options)

    def preprocess(
        self,
        videos: VideoInput,
        *,
        video_metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        return_metadata: bool = False,
        **options: Any,
    ) -> BatchFeature:
        """Turn one video or a batch of videos into pixel values.

        Args:
            videos: The path or address of a video file or a list of them; or frames, as for `VideoMAEImageProcessor`.
            video_metadata: Of videos given as frames, one for each: `fps` is needed to sample by it. What is known
                of a file is read from it.
            return_metadata: Also return `video_metadata`, a list of `VideoMetadata`, with the frames taken.
            **options: `do_sample_frames`, `num_frames`, `fps`: sampling for this call. `return_tensors`, `device`,
                `input_data_format` and settings that differ for this call: as for `VideoMAEImageProcessor`.

        Returns:
            `pixel_values`, float32 `[B, T, C, H, W]`, or a list of `[T, C, H, W]` where `return_tensors` is None.

        Raises:
            VideoReadError: If a file cannot be read.
            ConfigError: If a setting is unknown, out of range, or contradicts another.
            ValueError: If the videos cannot be used, or differ in a way that no single tensor can hold.
        """
        asked = {name: options.pop(name, None) for name in SAMPLING}
        check_counts(asked["num_frames"], asked["fps"])
        paths = listed_paths(videos)
        if paths is not None:
            sampling = self._sampling(asked, by_default=True)
            features, metadata = self._preprocess_files(paths, sampling, options)
        else:
            sampling = self._sampling(asked, by_default=self.do_sample_frames)
            videos, metadata = sample_videos(cast("Videos", videos), video_metadata, sampling, wanted=return_metadata)
            features = super().preprocess(videos, **options)
        if return_metadata:
            features["video_metadata"] = metadata
        return features

    def _preprocess_files(
        self, paths: Sequence[str], sampling: Sampling, options: Mapping[str, Any]
    ) -> tuple[BatchFeature, list[VideoMetadata]]:
        """Take the frames of each file through all steps as they are decoded, then put the videos together."""
        prepare = {name: options[name] for name in ("device", *SETTINGS) if name in options}
        form = {name: value for name, value in options.items() if name not in prepare and name != "input_data_format"}
        whole = super().preprocess

        def pixel_values(frames: NDArray[np.uint8]) -> Tensor:
            one = whole(frames, return_tensors="pt", input_data_format=CHANNELS_LAST, **prepare).pixel_values[0]
            return cast(Tensor, one)

        read = [read_video(path, sampling, pixel_values) for path in paths]
        features = whole([frames for frames, _ in read], input_data_format=CHANNELS_FIRST, **form, **NO_STEPS)
        return features, [facts for _, facts in read]

    def _sampling(self, asked: Mapping[str, Any], *, by_default: bool) -> Sampling:
        """Choose which frames are taken: what the call asks for, else what the settings say."""
        num_frames, fps, wanted = asked["num_frames"], asked["fps"], asked["do_sample_frames"]
        is_given = num_frames is not None or fps is not None
        if wanted is False and is_given:
            raise ConfigError("do_sample_frames is False, but num_frames or fps is given: leave one of them out")
        if not is_given:
            num_frames, fps = self.num_frames, self.fps
        check_counts(num_frames, fps)
        return Sampling(is_given or (by_default if wanted is None else bool(wanted)), num_frames, fps, self.clip)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **settings: Any) -> Self:
        """Read the processor of a model folder, with the frame sampling that the model was trained with.

        Args:
            source: A folder with `video_preprocessor_config.json` or else `preprocessor_config.json`, such a file,
                or `owner/name` on the Hub.
            **settings: As for `VideoMAEImageProcessor.from_pretrained`, and those of this class.

        Raises:
            WeightsError: If the file is missing or damaged.
            ConfigError: If it is for another family of models, or a setting is unknown or out of range.
        """
        hub, settings = split_hub_options(settings)
        files = find_settings(source, (VIDEO_PROCESSOR_FILE, PROCESSOR_FILE), hub=hub, companion=RECORD_FILE)
        values = read_json(files.settings)
        if files.companion is not None:
            values = {**values, **ModelRecord(sampling=read_record(files.companion).sampling).to_dict()}
        return cls._from_values(values, settings, files.settings)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **settings: Any) -> Self:
        """Build a processor from the contents of either kind of file; `settings` win.

        Raises:
            ConfigError: If the values are for another family of models, or a setting is unknown or out of range.
        """
        kind = values.get(TYPE_KEY)
        if kind not in (None, VideoMAEVideoProcessor.__name__):
            raise ConfigError(f"{TYPE_KEY} is {kind!r}; this class reads {VideoMAEVideoProcessor.__name__}")
        refuse_unknown(settings, (*SETTINGS, *OWN_SETTINGS, "clip"))
        settings = {name: value for name, value in settings.items() if value is not None}
        clip = settings.pop("clip", None) or sampling_from(values)
        own = {name: values[name] for name in OWN_SETTINGS if values.get(name) is not None}
        own.update({name: settings.pop(name) for name in OWN_SETTINGS if name in settings})
        rest = {key: value for key, value in values.items() if key not in (*OWN_SETTINGS, "clip", TYPE_KEY)}
        processor = super().from_dict(rest, **settings)
        steps = {name: getattr(processor, name) for name in SETTINGS}
        whole = cls(**steps, **own, clip=clip)
        whole.extra = processor.extra
        return whole

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as transformers writes them, the clip, and what the file held besides."""
        values = {name: value for name, value in super().to_dict().items() if name != "image_processor_type"}
        values.update({name: getattr(self, name) for name in OWN_SETTINGS if getattr(self, name) is not None})
        return {**values, **ModelRecord(sampling=self.clip).to_dict(), TYPE_KEY: VideoMAEVideoProcessor.__name__}
