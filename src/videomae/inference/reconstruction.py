"""A pre-trained model's predictions of hidden patches, shown with and without ground-truth patch statistics.

A model trained with `norm_pix_loss` predicts each hidden tubelet normalized: its structure, but neither its
brightness nor its contrast. To show such a prediction these two must come from somewhere. The usual figures take them
from the hidden tubelet itself, and so are close to the original even for a model that has learned nothing. Here that
version (`with_true_statistics`) stands beside one (`prediction`) that uses nothing hidden: mean and std of
each hidden tubelet are averages over the visible ones around it. What is finer than that is the model's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from videomae.atomic import atomic_file
from videomae.engine.precision import DeviceName
from videomae.engine.seeding import torch_generator
from videomae.errors import ConfigError, RunError
from videomae.inference.clips import clip_batches, normalized
from videomae.inference.files import check_output
from videomae.inference.loaded import LoadedModel, load_pretraining
from videomae.inference.strip import StripRow, draw_strip
from videomae.masking import MaskConfig, draw_masks
from videomae.model.pretraining import IMAGENET_MEAN, IMAGENET_STD, VideoMAEForPreTraining
from videomae.patches import (
    complement,
    denormalize_patches,
    gather_tokens,
    interpolated_statistics,
    patch_statistics,
    patchify,
    unpatchify,
)
from videomae.video.opening import open_reader, stored_frames
from videomae.video.sampling import clip_indices

Frames = NDArray[np.uint8]
RGB = 3  # channels of a drawing
GRAY = 128  # hidden patches in the encoder's input
MAX_COLUMNS = 8  # frames in a strip

TRUE_STATISTICS_LABEL = "prediction with each hidden patch's true mean and std: leaks what the model did not predict"
PREDICTION_LABEL = "prediction with mean and std interpolated from the visible patches: uses nothing hidden"


@dataclass(frozen=True)
class Reconstruction:
    """One clip in up to four versions; visible patches are the same in all, to the bit."""

    path: str
    """The video."""
    original: Frames
    """`[T, H, W, 3]` the clip as the model gets it: resized and cropped."""
    masked: Frames
    """What the encoder gets: hidden patches are gray."""
    with_true_statistics: Frames | None
    """Predictions with the true mean and std of each hidden tubelet and channel, which the model did not predict;
    None without `norm_pix_loss`, where there is nothing to add."""
    prediction: Frames
    """Predictions without ground-truth patch statistics: nothing is taken from what was hidden."""
    hidden: NDArray[np.bool_]
    """`[t, h, w]`, True = hidden from the encoder."""
    frame_indices: NDArray[np.int64]
    """`[T]` frames of the video."""
    frame_seconds: NDArray[np.float64]
    """`[T]` their times from the start of the video."""
    mask: MaskConfig
    """How patches were hidden."""
    seed: int
    """Of the mask."""
    loss: float
    """The model's loss on this clip and mask."""


def reconstruct(
    source: str | os.PathLike[str],
    video: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    mask: MaskConfig | None = None,
    seed: int = 0,
    device: DeviceName = "auto",
) -> Reconstruction:
    """Hide patches of the middle of a video and let a pre-trained model predict them.

    Args:
        source: Folder of a pre-trained model with its decoder or of a finished pre-training run, weights file, or Hub
            name.
        video: The video file.
        output: PNG file for a strip of frames, one a tubelet, in all versions, labelled; its folder must exist.
        mask: How patches are hidden; as in the model's training where not given, or tubes over 90 % of the frame. All
            hidden ones are predicted.
        seed: Of the mask.
        device: Where to compute; always in float32.

    Returns:
        The frames of all versions.

    Raises:
        WeightsError: If the source cannot be loaded or holds no decoder.
        VideoReadError: If the video cannot be read.
        ConfigError: If the mask does not fit the model, or the output is no PNG file in a folder that exists.
        RunError: If the output cannot be written.
    """
    if output is not None:
        check_output(output, suffix=".png")
    loaded = load_pretraining(source, device=device)
    result = reconstruct_video(loaded, video, mask=mask, seed=seed)
    if output is not None:
        save_strip(result, output, title=Path(source).resolve().name)
    return result


@torch.inference_mode()
def reconstruct_video(
    loaded: LoadedModel[VideoMAEForPreTraining],
    video: str | os.PathLike[str],
    *,
    mask: MaskConfig | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Do what `reconstruct` does with a model that is loaded already, without writing a file."""
    mask = mask or loaded.mask
    model = loaded.model
    if model.config.num_channels != RGB:
        raise ConfigError(
            f"{loaded.source} takes frames of {model.config.num_channels} channel, and a reconstruction is drawn in "
            "three: use a model of RGB frames"
        )
    with open_reader(video, fps=loaded.clip.fps) as reader:
        indices = clip_indices(len(reader), loaded.clip)  # [1, T]
        (clip,) = clip_batches(reader.frames_in_order, indices, loaded.processor, batch_size=1)
        seconds = reader.timestamps_seconds[indices[0]]
        indices = stored_frames(reader, indices)
    pixel_values = normalized(clip, loaded.processor, device=model.device)  # [1, T, C, H, W]
    grid = model.videomae.embeddings.grid_of(pixel_values)
    # Drawn on the CPU, so that a seed hides the same patches on every device.
    visible = draw_masks(mask, grid, batch=1, generator=torch_generator(seed, "reconstruction")).visible
    visible = visible.to(model.device)  # [1, V]
    output = model(pixel_values, visible_indices=visible)
    versions = compose_versions(loaded, pixel_values, visible, output.logits)
    hidden = np.ones(grid.num_tokens, dtype=np.bool_)
    hidden[visible[0].cpu().numpy()] = False
    return Reconstruction(
        path=os.fspath(video),
        original=versions.original,
        masked=versions.masked,
        with_true_statistics=versions.with_true_statistics,
        prediction=versions.prediction,
        hidden=hidden.reshape(grid.frames, grid.height, grid.width),
        frame_indices=indices[0],
        frame_seconds=seconds,
        mask=mask,
        seed=seed,
        loss=float(output.loss),
    )


@dataclass(frozen=True)
class Versions:
    """The versions of one clip, uint8 `[T, H, W, 3]` each; see `Reconstruction`."""

    original: Frames
    """All patches true."""
    masked: Frames
    """Hidden patches gray."""
    with_true_statistics: Frames | None
    """Hidden patches predicted, with their true statistics."""
    prediction: Frames
    """Hidden patches predicted, with statistics interpolated from the visible ones."""


def compose_versions(
    loaded: LoadedModel[VideoMAEForPreTraining], pixel_values: Tensor, visible: Tensor, predictions: Tensor
) -> Versions:
    """Put predictions of hidden tubelets into a clip.

    Args:
        loaded: The model, whose configuration says what predictions mean, and its processor.
        pixel_values: `[1, T, 3, H, W]`.
        visible: `[1, V]` int64 token indices.
        predictions: `[1, N - V, P]`, for the other tokens in raster order: the model's logits.

    Returns:
        The clip in its versions.
    """
    model = loaded.model
    tubelet = model.tubelet
    grid = model.videomae.embeddings.grid_of(pixel_values)
    # The model predicts pixels before the ImageNet normalization, whatever the processor used.
    mean, std = (
        torch.tensor(one, device=pixel_values.device).view(-1, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD)
    )
    true = patchify(pixel_values.float() * std + mean, tubelet)  # [1, N, P]
    hidden = complement(visible, grid.num_tokens)  # [1, N - V]
    original = loaded.processor.inverse(pixel_values)  # [1, T, C, H, W] uint8
    hidden_values = torch.zeros_like(true, dtype=torch.bool).index_fill_(1, hidden[0], True)
    is_hidden = unpatchify(hidden_values, grid, tubelet)  # [1, T, C, H, W]

    def with_hidden(patches: Tensor) -> Frames:
        filled = true.index_copy(1, hidden[0], patches.float())
        frames = loaded.processor.inverse((unpatchify(filled, grid, tubelet) - mean) / std)
        return _channels_last(torch.where(is_hidden, frames, original))  # visible patches: exact by construction

    with_true, prediction = None, predictions.float()
    if model.config.norm_pix_loss:
        num_channels = model.config.num_channels
        statistics = patch_statistics(gather_tokens(true, hidden), num_channels)
        with_true = denormalize_patches(predictions.float(), statistics)
        known = interpolated_statistics(true, visible, hidden, grid, num_channels)
        prediction = denormalize_patches(predictions.float(), known)
    return Versions(
        original=_channels_last(original),
        masked=_channels_last(torch.where(is_hidden, torch.full_like(original, GRAY), original)),
        with_true_statistics=None if with_true is None else with_hidden(with_true),
        prediction=with_hidden(prediction),
    )


def reconstruction_strip(result: Reconstruction, *, title: str = "") -> Image.Image:
    """Draw the versions below each other, the first frame of each tubelet side by side.

    Args:
        result: What to draw. Of more than eight tubelets, eight are taken at even distances.
        title: The model's name, for the heading.

    Returns:
        An RGB image.
    """
    num_tubelets = result.hidden.shape[0]
    chosen = np.linspace(0, num_tubelets - 1, min(num_tubelets, MAX_COLUMNS)).round().astype(np.int64)
    shown = chosen * (len(result.original) // num_tubelets)
    name = result.path.replace("\\", "/").rpartition("/")[2]
    visible = 1.0 - float(result.hidden.mean())
    rows = [
        StripRow("original", result.original[shown]),
        StripRow(f"input of the encoder: {visible:.1%} of the patches", result.masked[shown]),
    ]
    if result.with_true_statistics is None:
        rows.append(StripRow("prediction", result.prediction[shown]))
    else:
        rows.append(StripRow(TRUE_STATISTICS_LABEL, result.with_true_statistics[shown], is_warning=True))
        rows.append(StripRow(PREDICTION_LABEL, result.prediction[shown]))
    return draw_strip(
        rows,
        heading=[
            f"{title}: {name}" if title else name,
            f"{result.mask.kind} mask {result.mask.ratio:.0%}, seed {result.seed}, loss {result.loss:.4f}",
        ],
        columns=[f"{second:.2f} s" for second in result.frame_seconds[shown]],
    )


def save_strip(result: Reconstruction, output: str | os.PathLike[str], *, title: str = "") -> None:
    """Write `reconstruction_strip` as PNG, atomically.

    Raises:
        RunError: If the file cannot be written.
    """
    image = reconstruction_strip(result, title=title)
    try:
        with atomic_file(Path(output)) as stream:
            image.save(stream, "PNG")
    except OSError as error:
        raise RunError(f"cannot write {os.fspath(output)}: {error.strerror or error}") from None


def _channels_last(frames: Tensor) -> Frames:
    array: Frames = frames[0].permute(0, 2, 3, 1).cpu().numpy()  # [1, T, C, H, W] -> [T, H, W, C]
    return np.ascontiguousarray(array)
