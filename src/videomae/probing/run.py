"""A whole probe: features once, three probes over folds of groups, the learning curve, a model folder.

Run as `videomae probe`.
"""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from videomae import __version__
from videomae.engine.precision import DeviceName
from videomae.errors import RunError
from videomae.evaluation.metrics import compute_metrics
from videomae.model.embeddings import native_grid
from videomae.probing.configs import ProbeConfig
from videomae.probing.extraction import MAX_SIDE, Features, Frozen, cache_files, extract, load_frozen
from videomae.probing.linear import LinearProbe, choose_penalty, fit_linear
from videomae.probing.measurement import Measured, measure
from videomae.probing.results import PROBE_FILE, REPORT_FILE, ProbeResult, ProbeVideo
from videomae.probing.videos import ProbeVideos, check_classes, find_videos
from videomae.sharing.record import EvaluationSummary, ModelRecord, TrainingRecord, read_record, save_record
from videomae.video.sampling import ClipConfig
from videomae.weights.sources import RUN_FOLDER

FEATURES_FOLDER = "features"
OWN = frozenset((FEATURES_FOLDER, RUN_FOLDER, PROBE_FILE, REPORT_FILE))


def probe(
    source: str,
    data: Path,
    *,
    out: Path,
    split: str | None = None,
    clip: ClipConfig | None = None,
    config: ProbeConfig | None = None,
    cache: Path | None = None,
    device: DeviceName = "auto",
    overwrite: bool = False,
) -> ProbeResult:
    """Measure how far frozen features get on labelled videos, and save the linear probe as a classifier.

    Args:
        source: Folder of any model or of a finished run, weights file, Hub name, or `default`.
        data: Folder of the videos, see `find_videos`.
        out: Folder for the classifier (`model`), `probe.json`, and unless `cache` is given the features.
        split: Use only these rows of `labels.csv`.
        clip: How clips are sampled; as the record beside the weights says where not given.
        config: Folds, seed and what else there is to choose.
        cache: Folder for the features, which several probes may share.
        device: Where features are computed.
        overwrite: Replace the results that are in `out`; features are kept.

    Returns:
        What was found; `probe.json` has the same.

    Raises:
        VideoMAEError: If the model, the videos or the folder cannot be used, or too many videos cannot be read.
    """
    config = config or ProbeConfig()
    check_out(out, overwrite=overwrite)
    videos = find_videos(data, split=split)
    loaded = load_frozen(source, videos.manifest.classes, clip=clip, device=device)
    files = cache_files(loaded, videos.manifest, cache or out / FEATURES_FOLDER)
    for line in [*videos.summary(), *cost_lines(loaded, files, config)]:
        tell(line)
    began = time.monotonic()
    features = extract(loaded, videos.manifest, files, workers=config.workers)
    seconds = {"features": time.monotonic() - began}
    good = videos.subset(features.good)
    check_classes(good)
    measured = measure(features, good, config, tell=tell)
    classifier, penalty = whole_probe(features, good, config)
    result = _result(source, loaded, good, features, measured, penalty, seconds={**seconds, **measured.seconds})
    save_classifier(loaded, classifier, out / RUN_FOLDER, record=_record(loaded, good, result, config))
    result.save(out)
    return result


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that the results can go into a folder.

    Raises:
        RunError: If it holds anything but a probe's files, or results that are not to be replaced.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"output folder {out} is a file: choose another path")
    names = {entry.name for entry in out.iterdir()} if out.exists() else set[str]()
    if (PROBE_FILE in names or RUN_FOLDER in names) and not names - OWN:
        if not overwrite:
            raise RunError(
                f"output folder {out} has a probe: choose another folder, or --overwrite; features are kept"
            )
    elif names - OWN:
        raise RunError(
            f"output folder {out} has other content, such as {min(names - OWN)}, so it is left alone: choose another "
            "folder, or empty it by hand"
        )


def cost_lines(loaded: Frozen, files: list[Path], config: ProbeConfig) -> list[str]:
    """Tell what is about to be computed."""
    model = loaded.model
    grid, width = native_grid(model.config), model.config.hidden_size
    num_slices = loaded.clip.num_frames // model.config.tubelet_size
    kept = num_slices * min(grid.height, MAX_SIDE) * min(grid.width, MAX_SIDE)
    missing = sum(not file.is_file() for file in files)
    megabytes = len(files) * (2 * kept + 4) * width / 1e6
    parameters = model.num_parameters() / 1e6
    encoder = (
        f"encoder: {parameters:.1f} million parameters, {loaded.clip.num_frames} frames of {model.config.image_size} "
        f"pixels, {num_slices * grid.height * grid.width} tokens a clip, on {model.device.type}"
    )
    features = (
        f"features: {missing} of {len(files)} videos to be computed, the others are on disk; {megabytes:.0f} MB in "
        f"{files[0].parent.parent}"
    )
    kinds = "linear, k-NN and attentive" if config.attentive else "linear and k-NN"
    return [encoder, features, f"probes: {kinds}, {config.folds} folds, regularization chosen inside each"]


def whole_probe(features: Features, videos: ProbeVideos, config: ProbeConfig) -> tuple[LinearProbe, float]:
    """Fit the linear probe to all videos; returns it and its penalty, which was chosen over folds of groups."""
    labels, num_classes = videos.labels, len(videos.manifest.classes)
    penalty = choose_penalty(features.pooled, labels, videos.group_ids, num_classes=num_classes, seed=config.seed)
    return fit_linear(features.pooled, labels, penalty=penalty, num_classes=num_classes), penalty


@torch.no_grad()
def save_classifier(loaded: Frozen, probe: LinearProbe, folder: Path, *, record: ModelRecord) -> None:
    """Write the encoder with the probe as its last layer: a model folder like any other.

    Raises:
        WeightsError: If the folder cannot be written.
    """
    loaded.model.classifier.weight.copy_(torch.from_numpy(probe.weight))
    loaded.model.classifier.bias.copy_(torch.from_numpy(probe.bias))
    loaded.model.save_pretrained(folder, processor=loaded.processor)
    save_record(folder, record)


def tell(line: str) -> None:
    """Print a line of progress; results have standard output for themselves."""
    print(line, file=sys.stderr, flush=True)


def _result(
    source: str,
    loaded: Frozen,
    videos: ProbeVideos,
    features: Features,
    measured: Measured,
    penalty: float,
    *,
    seconds: dict[str, float],
) -> ProbeResult:
    labels, manifest = videos.labels, videos.manifest
    metrics = compute_metrics(measured.linear_probabilities, labels)
    counts = np.bincount(labels, minlength=len(manifest.classes))
    rows = zip(manifest.rows, videos.groups, measured.linear_probabilities, strict=True)
    return ProbeResult(
        model=source,
        data=manifest.root.as_posix(),
        classes=manifest.classes,
        class_counts=tuple(int(count) for count in counts),
        num_groups=len(set(videos.groups)),
        has_groups=videos.has_groups,
        clip=loaded.clip,
        folds=measured.folds,
        majority=measured.majority,
        probes=measured.probes,
        mean_class=metrics.mean_class,
        confusion=metrics.confusion,
        calibration_error=measured.calibration_error,
        reliability=measured.reliability,
        curve=measured.curve.points,
        curve_fit=measured.curve.fit,
        gain=measured.curve.gain,
        gain_interval=measured.curve.gain_interval,
        advice=measured.advice,
        penalty=penalty,
        num_cached=features.num_cached,
        seconds=seconds,
        bad=features.bad,
        videos=tuple(
            ProbeVideo(
                manifest.relative_path(row), group, int(row.label or 0), int(found.argmax()), float(found.max())
            )
            for row, group, found in rows
        ),
    )


def _record(loaded: Frozen, videos: ProbeVideos, result: ProbeResult, config: ProbeConfig) -> ModelRecord:
    """Return what the model folder says of its model: accuracies are those of the folds, never of seen videos."""
    origin = loaded.model.origin
    before = None if origin is None or origin.record is None else read_record(origin.record)
    evaluation = EvaluationSummary(
        num_videos=len(videos.groups),
        num_bad_videos=len(result.bad),
        top1=result.linear.accuracy,
        top1_interval=(result.linear.interval.low, result.linear.interval.high),
        mean_class=result.mean_class,
        extra={
            "protocol": f"linear probe, {result.folds} folds of {'groups' if result.has_groups else 'videos'}",
            "calibration_error": result.calibration_error,
        },
    )
    training = TrainingRecord(
        stage="linear probe",
        data_fingerprint=videos.manifest.fingerprint(),
        recipe={"model": result.model, "penalty": result.penalty, **asdict(config)},
        videos_left_out={one.path: one.reason for one in result.bad},
        num_videos_left_out=len(result.bad),
        videomae_version=__version__,
        torch_version=torch.__version__,
        python_version=platform.python_version(),
    )
    return ModelRecord(
        sampling=loaded.clip,
        training=training,
        evaluation=evaluation,
        licence=None if before is None else before.licence,
    )
