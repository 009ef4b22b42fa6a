"""Multi-view evaluation of a classifier on a folder of labelled videos.

Workers read and resize, each video once; this process crops the views, classifies them in batches that reach over
several videos, and averages the probabilities of each video's views. A video is known by its row of the
manifest, never by its name. One that cannot be read is named and counted, never replaced by another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from videomae.data.configs import ProblemType, SplitName
from videomae.data.datasets import BadVideo
from videomae.data.manifest import Manifest
from videomae.data.scan import scan_labelled
from videomae.data.splits import measured_rows, rows_of_split
from videomae.engine.precision import DeviceName, autocast
from videomae.engine.progress import TrainingProgress
from videomae.engine.workers import running_workers, start_worker, warned_of_many
from videomae.errors import RunError, VideoReadError
from videomae.evaluation.agreement import Agreement, Comparison
from videomae.evaluation.classes import model_targets, problem_of_model
from videomae.evaluation.configs import ProtocolName, by_protocol
from videomae.evaluation.results import EvaluationConfig, EvaluationResult, VideoResult, metrics_of
from videomae.evaluation.views import VideoViews, check_views, read_views
from videomae.inference.backends import in_precision
from videomae.inference.clips import normalized
from videomae.inference.files import check_output
from videomae.inference.loaded import check_clip, load_trained
from videomae.inference.scores import scores_of, settled_thresholds, usual_activation
from videomae.inference.some_windows import spread_windows
from videomae.inference.window_choice import WindowChoice
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.sampling import ClipConfig

FloatArray = NDArray[np.float64]
MAX_ITEM_CLIPS = 32  # of one video in memory at a time; more than any published protocol has, which so is read once


def evaluate(
    model: VideoMAEForVideoClassification,
    manifest: Manifest,
    *,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    config: EvaluationConfig | None = None,
    thresholds: Mapping[str, float] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Classify every video of a manifest from several views and compute the figures.

    Args:
        model: The classifier, on the device to compute on. It is run in eval mode and left as it was.
        manifest: Labelled videos; their class names must be among the classifier's.
        processor: Resizing, crop size, mean and std.
        clip: How clips are sampled.
        config: Views, batches, workers, precision, speed; the published Kinetics protocol where not given.
        thresholds: Scores from which labels count as present, by name, where a video may have several; 0.5 for a
            label without one. They must not have been chosen on these videos.
        on_progress: Called after each video with (done, total).

    Returns:
        Probabilities of each video, metrics, and the videos that could not be read.

    Raises:
        ConfigError: If clip, processor or class names do not fit the classifier.
        ManifestError: If the videos have no labels.
        RunError: If no video can be read, or the model's output is not finite.

    Source: the test protocol of VideoMAE (Tong et al. 2022): softmax of each view, then the mean.
    """
    config = config or EvaluationConfig()
    targets = model_targets(model.config, manifest)
    check_clip(clip, model.config)
    check_views(processor, config.views)
    dataset = _ViewsDataset(manifest, clip=clip, config=config, processor=processor)
    was_training = model.training
    model.eval()
    try:
        merger = _ViewMerger(model, dataset, config, problem=targets.problem)
        bad = _classify_all(dataset, merger, workers=config.workers, on_progress=on_progress)
    finally:
        model.train(was_training)
    good = [number for number in range(len(manifest.rows)) if number not in bad]
    if not good:
        first = bad[0]
        raise RunError(f"none of the {len(bad)} videos can be read; the first is {first.path}: {first.reason}")
    is_choice = targets.problem == "single_label_classification"
    rows = []
    for number in good:
        row, video = manifest.rows[number], merger.probabilities[number]
        path = manifest.relative_path(row)
        if not np.isfinite(video).all():
            raise RunError(f"the model's output for {path} is not finite: use precision fp32, or other weights")
        label = int(targets.values[number]) if is_choice else -1
        true = () if is_choice else tuple(targets.values[number].tolist())
        rows.append(VideoResult(path, label, int(video.argmax()), tuple(video.tolist()), row.group, true))
    several = targets.problem == "multi_label_classification"
    levels = settled_thresholds(thresholds, targets.names) if several else ()
    return EvaluationResult(
        root=manifest.root.as_posix(),
        classes=targets.names,
        rows=tuple(rows),
        metrics=metrics_of(rows, targets.problem, levels),
        bad=tuple(bad.values()),
        clip=clip,
        config=config,
        problem=targets.problem,
        thresholds=levels,
        agreement=merger.agreement(good, rows, levels),
    )


def evaluate_folder(
    source: str | os.PathLike[str],
    data: Path,
    *,
    split: SplitName | None = None,
    protocol: ProtocolName | None = None,
    clip: ClipConfig | None = None,
    config: EvaluationConfig | None = None,
    device: DeviceName = "auto",
    output: Path | None = None,
) -> EvaluationResult:
    """Evaluate a saved classifier on labelled videos.

    Args:
        source: Folder of a classifier or of a finished fine-tuning run, weights file, or Hub name.
        data: The labelled videos, a folder with `labels.csv` or one folder for each class, or a manifest file; with
            the classifier's class names.
        split: Which part of them; None: test, else val, or all where none is named. What is left out is printed.
        protocol: A published protocol by name, which says the kind of the clips and the views; None: as clip and
            config say.
        clip: How clips are sampled; as the record beside the weights says where not given.
        config: Views, batches, workers, precision.
        device: Where to compute.
        output: Where to write the whole result, see `EvaluationResult.to_json`; its folder must exist.

    Returns:
        As `evaluate`.

    Raises:
        VideoMAEError: If the model, the data or the settings cannot be used, or the output cannot be written.
    """
    if output is not None:
        check_output(output)
    loaded = load_trained(VideoMAEForVideoClassification, source, clip=clip, device=device)
    problem = problem_of_model(loaded.model.config)
    several = problem == "multi_label_classification"
    whole = scan_labelled(data, subset=True, several=several, values=problem == "regression")
    clip = loaded.clip
    if protocol is not None:
        clip, config = by_protocol(protocol, clip, config)
    manifest = measured_rows(whole) if split is None else rows_of_split(whole, split)
    if split is None and len(manifest.rows) < len(whole.rows):
        part = manifest.rows[0].split
        print(
            f"evaluating the {len(manifest.rows)} videos of the split {part} of {whole.name}; --split all takes all "
            f"{len(whole.rows)}",
            file=sys.stderr,
        )
    with TrainingProgress("evaluating", total_steps=len(manifest.rows)) as progress:
        result = evaluate(
            loaded.model,
            manifest,
            processor=loaded.processor,
            clip=clip,
            config=config,
            thresholds=loaded.thresholds,
            on_progress=lambda done, total: progress.update(done, num_clips=1),
        )
    if output is not None:
        result.save(output)
    return result


class _ViewsDataset(Dataset[VideoViews | BadVideo]):
    """The views of each video, or why there are none; a video of many clips is several items one after the other."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        clip: ClipConfig,
        config: EvaluationConfig,
        processor: VideoMAEImageProcessor,
    ) -> None:
        self.manifest = manifest
        self.clip = clip
        self.views = config.views
        self.processor = processor
        self.store = manifest.index_store()
        self.clips_of_item = MAX_ITEM_CLIPS
        self.items_of_video = -(-config.views.num_clips // MAX_ITEM_CLIPS)  # rounded up

    def __len__(self) -> int:
        return len(self.manifest.rows) * self.items_of_video

    def some_clips(self) -> Iterator[Tensor]:
        """Yield clips of some videos, uint8 `[1, T, C, h, w]`."""
        videos = [row.source for row in self.manifest.rows]
        yield from spread_windows(videos, WindowChoice(), clip=self.clip, processor=self.processor, store=self.store)

    def __getitem__(self, item: int) -> VideoViews | BadVideo:
        number, part = divmod(item, self.items_of_video)
        row = self.manifest.rows[number]
        clips = range(part * self.clips_of_item, (part + 1) * self.clips_of_item)
        try:
            return read_views(
                row.source,
                clip=self.clip,
                views=self.views,
                processor=self.processor,
                clips=clips,
                store=self.store,
            )
        except VideoReadError as error:
            return BadVideo(self.manifest.relative_path(row), str(error))


class _ViewMerger:
    """Classifies views in batches, which may hold several videos', and averages each video's probabilities."""

    def __init__(
        self,
        model: VideoMAEForVideoClassification,
        dataset: _ViewsDataset,
        config: EvaluationConfig,
        *,
        problem: ProblemType,
    ) -> None:
        self.model = model
        self.processor = dataset.processor
        num_videos = len(dataset.manifest.rows)
        self.batch_size = config.batch_size
        self.num_views = config.views.num_clips * config.views.num_crops
        clips = map(self._pixels, dataset.some_clips())  # read where ranges are found on them
        self.forward, self.dtype = in_precision(model, config.precision, config.backend, clips=clips)
        self.probabilities: FloatArray = np.zeros((num_videos, model.config.num_labels))
        """`[n, K]` float64, complete after `flush`."""
        self.comparison = (
            Comparison(self.forward, config.speed, problem=problem, num_videos=num_videos)
            if config.speed > 1.0
            else None
        )
        self._pending: list[tuple[int, float, Tensor]] = []

    def add(self, number: int, views: VideoViews) -> None:
        """Take views of video `number`."""
        for view, count in views.counts.items():
            pixels = views.pixels(view)
            if self._pending and self._pending[0][2].shape != pixels.shape:
                self.flush()  # frames that the processor does not crop differ from video to video
            self._pending.append((number, count / self.num_views, pixels))
            if len(self._pending) == self.batch_size:
                self.flush()

    @torch.inference_mode()
    def flush(self) -> None:
        """Classify what is waiting."""
        if not self._pending:
            return
        numbers, weights, clips = zip(*self._pending, strict=True)
        self._pending = []
        pixel_values = self._pixels(torch.stack(clips))
        with autocast(self.model.device, self.dtype):
            if self.comparison is None:
                self._add(self.probabilities, self.forward(pixel_values).logits, numbers, weights)
                return
            fewer, whole = self.comparison.logits(pixel_values)
        self._add(self.probabilities, fewer, numbers, weights)
        self._add(self.comparison.probabilities, whole, numbers, weights)

    def agreement(
        self, numbers: Sequence[int], rows: Sequence[VideoResult], thresholds: Sequence[float]
    ) -> Agreement | None:
        """Return what the speed changed and gained on these rows of the manifest, whose results are given."""
        if self.comparison is None:
            return None
        labels, groups = [row.label for row in rows], [row.group for row in rows]
        return self.comparison.result(self.probabilities, numbers, labels, groups, thresholds)

    def _pixels(self, clips: Tensor) -> Tensor:
        """Return uint8 clips `[B, T, C, h, w]` as pixel values `[B, T, C, H, W]`."""
        channels = self.model.config.num_channels
        return normalized(clips, self.processor, device=self.model.device, num_channels=channels)

    def _add(self, sums: FloatArray, logits: Tensor, numbers: Sequence[int], weights: Sequence[float]) -> None:
        activation = usual_activation(self.model.config)
        rows = scores_of(logits.cpu().double(), activation).numpy()  # [B, K]; cpu(): not every device has float64
        for number, weight, row in zip(numbers, weights, rows, strict=True):
            sums[number] += weight * row


def _classify_all(
    dataset: _ViewsDataset,
    merger: _ViewMerger,
    *,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> dict[int, BadVideo]:
    """Take every video through the merger; returns those that could not be read, by number."""
    bad: dict[int, BadVideo] = {}
    with warned_of_many(workers, setting="workers"):
        loader = DataLoader(
            dataset,
            batch_size=None,  # one item is one video, or some clips of it
            num_workers=workers,
            worker_init_fn=start_worker if workers else None,
            generator=torch.Generator(),  # nothing is drawn; without it the global random state would move
        )
    total = len(dataset.manifest.rows)
    with running_workers(loader) as items:
        for position, item in enumerate(items):
            number, part = divmod(position, dataset.items_of_video)
            if isinstance(item, BadVideo):
                bad[number] = item
            elif number not in bad:
                merger.add(number, item)
            if on_progress is not None and part == dataset.items_of_video - 1:
                on_progress(number + 1, total)
    merger.flush()
    return bad
