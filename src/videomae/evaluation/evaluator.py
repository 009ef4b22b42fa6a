"""Multi-view evaluation of a classifier on a folder of labelled videos.

Workers read and resize; this process cuts out the views, classifies them in batches that reach over several videos,
and averages the probabilities of each video's views. A video is known by its place in the manifest, never by its
name. One that cannot be read is named and counted, never replaced by another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from videomae.atomic import atomic_file
from videomae.data.datasets import BadVideo
from videomae.data.manifest import Manifest, scan_labelled
from videomae.engine.precision import DeviceName, autocast, compute_dtype
from videomae.engine.progress import TrainingProgress
from videomae.engine.workers import running_workers, start_worker
from videomae.errors import ConfigError, RunError, VideoReadError
from videomae.evaluation.classes import names_and_labels
from videomae.evaluation.configs import EvaluationConfig as EvaluationConfig
from videomae.evaluation.metrics import Metrics, compute_metrics
from videomae.evaluation.views import VideoViews, ViewsConfig, check_views, read_views
from videomae.inference.loaded import check_clip, load_trained
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.sampling import ClipConfig

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class VideoResult:
    """What the classifier made of one video."""

    path: str
    """Path relative to the data's root, with forward slashes."""
    label: int
    """True class, by the classifier's numbers."""
    prediction: int
    """Most probable class."""
    probabilities: tuple[float, ...]
    """`[K]` mean over the views of each view's softmax."""


@dataclass(frozen=True)
class EvaluationResult:
    """Everything an evaluation found."""

    root: str
    """Folder that the paths are relative to."""
    classes: tuple[str, ...]
    """K names, by the classifier's numbers."""
    rows: tuple[VideoResult, ...]
    """One for each video that could be read, in the manifest's order."""
    metrics: Metrics
    """Figures over `rows`."""
    bad: tuple[BadVideo, ...]
    """Videos that could not be read; they count neither as right nor as wrong."""
    clip: ClipConfig
    """How clips were sampled."""
    config: EvaluationConfig
    """How the evaluation was run."""

    def metrics_dict(self) -> dict[str, Any]:
        """Return the figures, and the number of videos left out, as plain JSON values."""
        return {**self.metrics.to_dict(), "num_bad_videos": len(self.bad)}

    def to_json(self) -> str:
        """Return the whole result as strict JSON text."""
        values = {
            "root": self.root,
            "classes": self.classes,
            "clip": asdict(self.clip),
            "config": asdict(self.config),
            "metrics": self.metrics_dict(),
            "bad_videos": [asdict(one) for one in self.bad],
            "videos": [asdict(one) for one in self.rows],
        }
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EvaluationResult:
        """Return the result that `to_json` wrote, equal to the one it was written from.

        Raises:
            RunError: If the text is none of its results.
        """
        try:
            values = json.loads(text)
            rows = tuple(
                VideoResult(**{**one, "probabilities": tuple(one["probabilities"])}) for one in values["videos"]
            )
            config = values["config"]
            return cls(
                root=values["root"],
                classes=tuple(values["classes"]),
                rows=rows,
                metrics=compute_metrics(
                    np.array([row.probabilities for row in rows]), np.array([row.label for row in rows])
                ),
                bad=tuple(BadVideo(**one) for one in values["bad_videos"]),
                clip=ClipConfig(**values["clip"]),
                config=EvaluationConfig(**{**config, "views": ViewsConfig(**config["views"])}),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"the text is no evaluation result ({type(error).__name__}: {error})") from None

    def summary(self) -> list[str]:
        """Return lines for people: accuracy, and every video that was left out with its reason."""
        metrics, interval = self.metrics, self.metrics.top1_interval
        lines = [
            f"top-1 {metrics.top1:.2%} (95 % interval {interval.low:.1%} to {interval.high:.1%})",
            f"videos {metrics.num_videos}",
            *([] if metrics.top5 is None else [f"top-5 {metrics.top5:.2%}"]),
            f"mean over classes {metrics.mean_class:.2%}",
        ]
        if self.bad:
            total = len(self.bad) + len(self.rows)
            lines.append(f"{len(self.bad)} of {total} videos could not be read and are not counted:")
            lines += [f"  {one.path}: {one.reason}" for one in self.bad]
        return lines


def evaluate(
    model: VideoMAEForVideoClassification,
    manifest: Manifest,
    *,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    config: EvaluationConfig | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Classify every video of a manifest from several views and judge the predictions.

    Args:
        model: The classifier, on the device to compute on. It is run in eval mode and left as it was.
        manifest: Labelled videos; their class names must be among the classifier's.
        processor: Resizing, crop size, mean and deviation.
        clip: How clips are sampled.
        config: Views, batches, workers, precision; the published Kinetics protocol where not given.
        on_progress: Called after each video with (done, total).

    Returns:
        Probabilities of each video, metrics, and the videos that could not be read.

    Raises:
        ConfigError: If clip, processor or class names do not fit the classifier.
        ManifestError: If the videos have no labels.
        RunError: If no video can be read, or the network's answer is not finite.

    Source: the test protocol of VideoMAE (Tong et al. 2022): softmax of each view, then the mean.
    """
    config = config or EvaluationConfig()
    names, labels = names_and_labels(model.config, manifest)
    check_clip(clip, model.config)
    check_views(processor, config.views)
    merger = _ViewMerger(model, processor, config, num_videos=len(manifest.rows))
    dataset = _ViewsDataset(manifest, clip=clip, views=config.views, processor=processor)
    was_training = model.training
    model.eval()
    try:
        bad = _classify_all(dataset, merger, workers=config.workers, on_progress=on_progress)
    finally:
        model.train(was_training)
    good = [number for number in range(len(manifest.rows)) if number not in bad]
    if not good:
        first = bad[0]
        raise RunError(f"none of the {len(bad)} videos can be read; the first is {first.path}: {first.reason}")
    rows = []
    for number in good:
        path, video = manifest.relative_path(manifest.rows[number]), merger.probabilities[number]
        if not np.isfinite(video).all():
            raise RunError(f"the network's answer to {path} is not finite: use precision fp32, or other weights")
        rows.append(VideoResult(path, int(labels[number]), int(video.argmax()), tuple(video.tolist())))
    return EvaluationResult(
        root=manifest.root.as_posix(),
        classes=names,
        rows=tuple(rows),
        metrics=compute_metrics(merger.probabilities[good], labels[good]),
        bad=tuple(bad.values()),
        clip=clip,
        config=config,
    )


def evaluate_folder(
    source: str | os.PathLike[str],
    data: Path,
    *,
    clip: ClipConfig | None = None,
    config: EvaluationConfig | None = None,
    device: DeviceName = "auto",
    output: Path | None = None,
) -> EvaluationResult:
    """Evaluate a saved classifier on a folder with one folder of videos for each class.

    Args:
        source: Folder of a classifier or of a finished fine-tuning run, weights file, or Hub name.
        data: The labelled videos; the folders carry the classifier's class names.
        clip: How clips are sampled; as the record beside the weights says where not given.
        config: Views, batches, workers, precision.
        device: Where to compute.
        output: Where to write the whole result as JSON; its folder must exist.

    Returns:
        As `evaluate`.

    Raises:
        VideoMAEError: If the model, the data or the settings cannot be used, or the output cannot be written.
    """
    if output is not None and not output.parent.is_dir():
        raise ConfigError(f"the folder of output {output} does not exist: make it, or choose another file")
    loaded = load_trained(VideoMAEForVideoClassification, source, clip=clip, device=device)
    manifest = scan_labelled(data)
    with TrainingProgress("evaluating", total_steps=len(manifest.rows)) as progress:
        result = evaluate(
            loaded.model,
            manifest,
            processor=loaded.processor,
            clip=loaded.clip,
            config=config,
            on_progress=lambda done, total: progress.update(done, num_clips=1),
        )
    if output is not None:
        write_text(output, result.to_json())
    return result


def write_text(path: Path, text: str) -> None:
    """Write a result file atomically.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        with atomic_file(path) as stream:
            stream.write(text.encode("utf-8"))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


class _ViewsDataset(Dataset[VideoViews | BadVideo]):
    """Item i: all views of video i, or why there are none."""

    def __init__(
        self, manifest: Manifest, *, clip: ClipConfig, views: ViewsConfig, processor: VideoMAEImageProcessor
    ) -> None:
        self.manifest = manifest
        self.clip = clip
        self.views = views
        self.processor = processor

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def __getitem__(self, number: int) -> VideoViews | BadVideo:
        row = self.manifest.rows[number]
        try:
            return read_views(row.path, clip=self.clip, views=self.views, processor=self.processor)
        except VideoReadError as error:
            return BadVideo(self.manifest.relative_path(row), str(error))


class _ViewMerger:
    """Classifies views in batches, which may hold several videos', and averages each video's probabilities."""

    def __init__(
        self,
        model: VideoMAEForVideoClassification,
        processor: VideoMAEImageProcessor,
        config: EvaluationConfig,
        *,
        num_videos: int,
    ) -> None:
        self.model = model
        self.processor = processor
        self.batch_size = config.batch_size
        self.dtype = compute_dtype(config.precision, model.device)
        self.probabilities: FloatArray = np.zeros((num_videos, model.config.num_labels))
        """`[n, K]` float64, complete after `flush`."""
        self._pending: list[tuple[int, float, Tensor]] = []

    def add(self, number: int, views: VideoViews) -> None:
        """Take the views of video `number`."""
        total = sum(views.counts.values())
        for view, count in views.counts.items():
            pixels = views.pixels(view)
            if self._pending and self._pending[0][2].shape != pixels.shape:
                self.flush()  # frames that the processor does not crop differ from video to video
            self._pending.append((number, count / total, pixels))
            if len(self._pending) == self.batch_size:
                self.flush()

    @torch.inference_mode()
    def flush(self) -> None:
        """Classify what is waiting."""
        if not self._pending:
            return
        numbers, weights, clips = zip(*self._pending, strict=True)
        self._pending = []
        pixel_values = self.processor(
            torch.stack(clips).to(self.model.device),
            return_tensors="pt",
            input_data_format="channels_first",
            do_resize=False,
            do_center_crop=False,
        ).pixel_values  # [B, T, C, H, W]
        with autocast(self.model.device, self.dtype):
            logits = self.model(pixel_values).logits
        shares = logits.cpu().double().softmax(dim=1).numpy()  # [B, K]; after cpu(): not every device has float64
        for number, weight, share in zip(numbers, weights, shares, strict=True):
            self.probabilities[number] += weight * share


def _classify_all(
    dataset: _ViewsDataset,
    merger: _ViewMerger,
    *,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> dict[int, BadVideo]:
    """Take every video through the merger; returns those that could not be read, by number."""
    bad: dict[int, BadVideo] = {}
    loader = DataLoader(
        dataset,
        batch_size=None,  # one item is one video
        num_workers=workers,
        worker_init_fn=start_worker if workers else None,
        generator=torch.Generator(),  # nothing is drawn; without it the loader would move the global random state
    )
    with running_workers(loader) as items:
        for number, item in enumerate(items):
            if isinstance(item, BadVideo):
                bad[number] = item
            else:
                merger.add(number, item)
            if on_progress is not None:
                on_progress(number + 1, len(dataset))
    merger.flush()
    return bad
