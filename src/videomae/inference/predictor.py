"""Class probabilities of videos, given as files or frames.

One view is the middle of the video, as in validation; several are those of the published test protocols, each with
the processor's center crop. Scores (`inference.scores`) are averaged over the views. Everything in the package that
classifies a single file, the pipeline for transformers' programs among it, goes through `Predictor`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.engine.configs import Backend, DeviceName, InferencePrecision
from videomae.engine.precision import autocast
from videomae.errors import ConfigError, RunError
from videomae.inference.backends import in_precision, needs_clips, settled_precision
from videomae.inference.clips import DEFAULT_BATCH_SIZE, ReadFrames, check_batch_size, clip_batches, normalized
from videomae.inference.configs import check_speed
from videomae.inference.inputs import EncodedVideo, VideoInput, batch_of, open_frames, path_of
from videomae.inference.loaded import LoadedModel, check_clip, load_classifier
from videomae.inference.openvino_blocks import check_openvino
from videomae.inference.scores import Activation, scores_of, settled_thresholds, usual_activation
from videomae.inference.some_windows import NUM_WINDOWS
from videomae.inference.token_merging import MergingClassifier
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.video.decoders import DecoderName, check_decoder
from videomae.video.index_store import IndexStore
from videomae.video.sampling import ClipConfig, IntArray, clip_indices, clip_indices_of_frames

Frames = NDArray[np.uint8]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one video, and the frames that were sampled."""

    path: str | None
    """The file; None for frames."""
    labels: tuple[str, ...]
    """Class names, most probable first, as many as were asked for and there are."""
    label_numbers: tuple[int, ...]
    """Their class ids."""
    probabilities: tuple[float, ...]
    """Their scores: probabilities that add up to 1 over all classes; of a model with several labels at once, or with
    one output, probabilities of their own; the values themselves of a regression."""
    frame_indices: tuple[tuple[int, ...], ...]
    """`[S][T]` indices of the frames of each view."""
    frame_seconds: tuple[tuple[float, ...], ...] | None
    """`[S][T]` times of these frames from the start of the video; None for frames."""
    activation: Activation = "softmax"
    """What made the scores: "softmax", "sigmoid", or "none" for a regression."""
    present: tuple[bool, ...] | None = None
    """Whether each score reaches its label's threshold (`videomae.json`, else 0.5); None without sigmoids."""

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        return asdict(self)


class ViewLogits(NamedTuple):
    """The model's output for every view of a video."""

    logits: Tensor
    """float64 `[S, K]` on the CPU."""
    frame_indices: IntArray
    """int64 `[S, T]`, the frames of each view."""
    frame_seconds: FloatArray | None
    """float64 `[S, T]`, their times from the start of the video; None for frames."""


class Predictor:
    """A classifier with its processor and frame sampling, ready for videos.

    Args:
        source: Folder of a classifier or of a finished fine-tuning run, weights file, or Hub name.
        device: Where to compute.
        clip: How clips are sampled; as the record beside the weights says where not given.
        precision: Compute dtype of matrix multiplications. float32 by default, so that probabilities are the same
            everywhere; int8 is for CPUs and the fastest, and rounds most.
        backend: What computes the model's blocks: torch, or OpenVINO, which is faster on a CPU.
        batch_size: Views in one forward pass. It bounds the memory used, however many views are asked for.
        speed: How many times fewer operations a clip takes, at least 1; see `token_merging`. 1 merges nothing.
        decoder: What decodes videos; other frames than PyAV's differ by rounding alone.

    Raises:
        WeightsError: If the source cannot be loaded or holds no classifier.
        ConfigError: If the clip does not fit the model, the batch size is below 1, the device, backend or decoder is
            not there, or the speed is below 1, or more than the model has tokens for or the backend merges.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        device: DeviceName = "auto",
        clip: ClipConfig | None = None,
        precision: InferencePrecision = "fp32",
        backend: Backend = "torch",
        batch_size: int = DEFAULT_BATCH_SIZE,
        speed: float = 1.0,
        decoder: DecoderName = "pyav",
    ) -> None:
        check_speed(speed, backend)  # before anything is read
        check_decoder(decoder)
        loaded = replace(load_classifier(source, clip=clip, device=device), decoder=decoder)
        self._take(loaded, precision, backend, batch_size, speed)

    @classmethod
    def from_loaded(
        cls,
        loaded: LoadedModel[VideoMAEForVideoClassification],
        *,
        precision: InferencePrecision = "fp32",
        backend: Backend = "torch",
        batch_size: int = DEFAULT_BATCH_SIZE,
        speed: float = 1.0,
    ) -> Self:
        """Make a predictor of a classifier that is in memory; the other arguments are those of the class."""
        predictor = cls.__new__(cls)
        predictor._take(loaded, precision, backend, batch_size, speed)
        return predictor

    def _take(
        self,
        loaded: LoadedModel[VideoMAEForVideoClassification],
        precision: InferencePrecision,
        backend: Backend,
        batch_size: int,
        speed: float,
    ) -> None:
        check_batch_size(batch_size)
        check_speed(speed, backend)
        self.source = loaded.source
        self.model = loaded.model
        self.processor = loaded.processor
        self.clip = loaded.clip
        self.decoder = loaded.decoder
        self.classes = loaded.classes
        self.thresholds = settled_thresholds(loaded.thresholds, loaded.classes)
        self.batch_size = batch_size
        self.backend = backend
        self.precision = settled_precision(precision, loaded.model.device)
        self.merging: MergingClassifier | None = None
        """What merges tokens; None where nothing does, at speed 1."""
        self._forward: Callable[[Tensor], Any] | None = None
        if needs_clips(precision, backend):
            check_openvino(loaded.model)
            return  # until `calibrate_on`
        found, self._dtype = in_precision(loaded.model, precision, backend)
        if speed > 1.0:
            self.merging = MergingClassifier(found, speed)
        self._forward = self.merging or found

    @property
    def is_calibrated(self) -> bool:
        """Whether nothing is to be found on some clips before others are classified; see `calibration.calibrate`.

        Only int8 with the backend openvino has ranges of values. They are found once: where nothing else has found
        them, on windows of the first video, or on the first clips.
        """
        return self._forward is not None

    @torch.inference_mode()
    def calibrate_on(self, clips: Sequence[Tensor]) -> str:
        """Find the ranges of 8-bit integers on clips, which all should be like that are classified afterwards.

        Args:
            clips: uint8 `[b, T, C, h, w]` each, at least one, resized and cropped as the processor does.

        Returns:
            For people, what rounding changes on these clips.
        """
        pixel_values = [self._pixels(one) for one in clips]
        self._forward, self._dtype = in_precision(self.model, "int8", self.backend, clips=pixel_values)
        exact, found = (
            torch.cat([scores_of(logits, self.activation) for logits in every])
            for every in (
                [self.model(one).logits.double() for one in pixel_values],
                [self._part_logits(one) for one in clips],
            )
        )
        apart = float((exact - found).abs().max())
        line = f"int8 compared with fp32, on {len(exact)} clips: scores differ by at most {apart:.2g}"
        if self.activation == "softmax":
            line += f", same top class in {int((exact.argmax(1) == found.argmax(1)).sum())}"
        return line

    @overload
    def predict(
        self,
        video: EncodedVideo | Frames,
        *,
        top_k: int = 5,
        num_views: int = 1,
        store: IndexStore | None = None,
    ) -> Prediction: ...

    @overload
    def predict(self, video: Any, *, top_k: int = 5, num_views: int = 1, store: IndexStore | None = None) -> Any: ...

    def predict(
        self, video: VideoInput, *, top_k: int = 5, num_views: int = 1, store: IndexStore | None = None
    ) -> Prediction | list[Prediction]:
        """Classify one video, or a batch of them.

        Args:
            video: A path, an http(s) address, bytes or an open binary file; or frames, RGB: uint8 `[n, H, W, 3]` or
                `[n, 3, H, W]` as array or tensor, or a list or deque of arrays, tensors or PIL images. As many frames
                as a clip has are the clip; any other number is sampled like a video of that many frames. Or a list of
                such videos.
            top_k: Number of classes to return, at least 1.
            num_views: S, clips to average over: 1 is the middle of the video.
            store: Keeps what is known of the files of a collection; it changes nothing but speed.

        Returns:
            The prediction; for a batch a list of them.

        Raises:
            VideoReadError: If the file cannot be read.
            ConfigError: If a number is below 1, or the frames are of another shape or type.
            RunError: If the model's output is not finite.
        """
        if top_k < 1:
            raise ConfigError(f"top_k is {top_k}; it must be at least 1")
        batch = batch_of(video)
        if batch is not None:
            return [self.predict(one, top_k=top_k, num_views=num_views, store=store) for one in batch]
        found = self.view_logits(video, num_views=num_views, store=store)
        probabilities = self._mean_scores(found.logits)  # [K]
        order = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
        seconds = found.frame_seconds
        return Prediction(
            path=path_of(video),
            labels=tuple(self.classes[number] for number in order),
            label_numbers=tuple(order),
            probabilities=tuple(probabilities[order].tolist()),
            frame_indices=tuple(tuple(row) for row in found.frame_indices.tolist()),
            frame_seconds=None if seconds is None else tuple(tuple(row) for row in seconds.tolist()),
            activation=self.activation,
            present=tuple(bool(probabilities[number] >= self.thresholds[number]) for number in order)
            if self.activation == "sigmoid"
            else None,
        )

    def view_logits(
        self,
        video: VideoInput,
        *,
        num_views: int = 1,
        clip: ClipConfig | None = None,
        store: IndexStore | None = None,
    ) -> ViewLogits:
        """Return the model's output for every view of one video, before any softmax.

        Args:
            video: As for `predict`, one.
            num_views: S, as for `predict`.
            clip: How clips are sampled in this call; None: as in all others.
            store: As for `predict`.

        Returns:
            The logits, and the frames that they were computed from.

        Raises:
            VideoReadError: If the file cannot be read.
            ConfigError: If `num_views` is below 1, the frames are of another shape or type, or the clip does not fit
                the model.
            RunError: If the output is not finite.
        """
        if num_views < 1:
            raise ConfigError(f"num_views is {num_views}; it must be at least 1")
        if clip is not None:
            check_clip(clip, self.model.config)
        clip = clip or self.clip
        with open_frames(video, fps=clip.fps, store=store, decoder=self.decoder) as opened:
            rule = clip_indices_of_frames if opened.seconds is None else clip_indices
            indices = rule(opened.num_frames, clip, num_views=num_views)  # [S, T]
            if not self.is_calibrated:
                spread = rule(opened.num_frames, clip, num_views=NUM_WINDOWS)
                self.calibrate_on(list(clip_batches(opened.read, spread, self.processor, batch_size=1)))
            logits = self._logits(opened.read, indices)
            seconds = None if opened.seconds is None else opened.seconds()[indices]
            found = ViewLogits(logits, opened.stored(indices), seconds)
        if not found.logits.isfinite().all():
            raise RunError(f"the model's output for {opened.name} is not finite: its weights are damaged")
        return found

    def probabilities(self, clips: Frames) -> FloatArray:
        """Return the mean over clips of each clip's scores; see `inference.scores`.

        Args:
            clips: uint8 `[S, T, H, W, 3]`, frames as they are in the video.

        Returns:
            float64 `[K]`.
        """
        frames = clips.reshape(-1, *clips.shape[2:])  # [S * T, H, W, 3]
        indices = np.arange(len(frames), dtype=np.int64).reshape(clips.shape[:2])  # [S, T]
        return self._mean_scores(self._logits(lambda wanted: frames[wanted], indices))

    @property
    def activation(self) -> Activation:
        """What makes scores of the model's outputs."""
        return usual_activation(self.model.config)

    def _mean_scores(self, logits: Tensor) -> FloatArray:
        """Return `[K]`, the mean over views of the scores of logits `[S, K]`."""
        scores: FloatArray = scores_of(logits, self.activation).mean(dim=0).numpy()
        return scores

    @torch.inference_mode()
    def clip_logits(self, clips: Tensor) -> Tensor:
        """Return the model's output for a batch of prepared clips, before any softmax.

        Args:
            clips: uint8 `[b, T, C, h, w]`, resized and cropped as the processor does.

        Returns:
            float64 `[b, K]` on the CPU. Computed there, a clip's values do not depend on the clips beside it, to the
            bit: they go through the model one by one, which is as fast in float32 and faster in bfloat16 and int8,
            where more than one leave the processor's cache.
        """
        parts = clips.split(1) if self.model.device.type == "cpu" else (clips,)
        if not self.is_calibrated:
            self.calibrate_on(parts)
        return torch.cat([self._part_logits(part) for part in parts])

    def _part_logits(self, clips: Tensor) -> Tensor:
        assert self._forward is not None  # calibrated
        with autocast(self.model.device, self._dtype):
            logits: Tensor = self._forward(self._pixels(clips)).logits
        return logits.cpu().double()  # after cpu(): not every device has float64

    def _pixels(self, clips: Tensor) -> Tensor:
        """Return uint8 clips `[b, T, C, h, w]` as pixel values `[b, T, C, H, W]`."""
        device, num_channels = self.model.device, self.model.config.num_channels
        return normalized(clips, self.processor, device=device, num_channels=num_channels).to(self.model.dtype)

    def _logits(self, read: ReadFrames, indices: IntArray) -> Tensor:
        """Return `[S, K]` float64 logits of the clips with these `[S, T]` frames."""
        batches = clip_batches(read, indices, self.processor, batch_size=self.batch_size)
        return torch.cat([self.clip_logits(clips) for clips in batches])
