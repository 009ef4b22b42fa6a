"""One line about the model that ships with the package, for commands that take it where none is named."""

from __future__ import annotations

import math

from safetensors import safe_open

from videomae.sharing.record import load_record
from videomae.weights.json_files import read_json
from videomae.weights.shipped import DEFAULT_MODEL, shipped_folder
from videomae.weights.sources import CONFIG_FILE, WEIGHTS_FILE


def shipped_line(option: str) -> str:
    """Tell what the shipped model is, from its own files, and how to take another.

    Args:
        option: The option that names another, such as `--model`.

    Raises:
        WeightsError: If its files are damaged.
    """
    folder = shipped_folder()
    config, record = read_json(folder / CONFIG_FILE, max_bytes=2**20), load_record(folder)
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    millions = sum(math.prod(shape) for shape in shapes) / 1e6
    clip, size = record.sampling, config["image_size"]
    assert clip is not None  # it ships with its sampling
    return (
        f"model: {DEFAULT_MODEL}, since none is named: {millions:.1f} million parameters, pre-trained on procedural "
        f"video only, {record.licence}; it takes {clip.num_frames} frames, stride {clip.stride}, of {size}x{size} "
        f"pixels; {option} names another"
    )
