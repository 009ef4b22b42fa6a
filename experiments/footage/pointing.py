"""Whether overlays point at the object that moves: the pointing game, against random points.

    python -m experiments.footage.pointing --out experiments/results/footage/pointing.json

Clips of smooth noise that stands still, with two textured squares: one moves, in the direction that is the class, the
other stands still. A linear classifier of the direction is fitted on the shipped encoder's features. A method hits if
its largest value lies in the moving square of that time slice. Controls: the still square, a random point, and the
same encoder with random weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from videomae.engine.seeding import numpy_generator
from videomae.explain.attributions import gradient_attention, occlusion, rollout
from videomae.inference.clips import normalized
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.probing.extraction import Frozen, clip_features, load_frozen
from videomae.probing.linear import fit_linear

SIZE, FRAMES, SIDE = 64, 16, 16
DIRECTIONS = {"down": (1, 0), "left": (0, -1), "right": (0, 1), "up": (-1, 0)}
SPEED = 2.2  # pixels a frame of the clip
Frames = NDArray[np.uint8]
Boxes = NDArray[np.int64]


def planted_clip(direction: str, seed: int) -> tuple[Frames, Boxes, Boxes]:
    """Draw a clip.

    Returns:
        `[16, 64, 64, 3]`; top and left of the moving square in each frame, `[16, 2]`; and of the still one.
    """
    rng = numpy_generator(11, "pointing", direction, seed)
    small = rng.integers(70, 180, (8, 8, 3), dtype=np.uint8)
    back = np.asarray(Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    textures = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((SIDE, SIDE)))
        for _ in range(2)
    ]
    step = np.array(DIRECTIONS[direction]) * SPEED
    path = step * np.arange(FRAMES)[:, None]  # [16, 2]
    low, high = -np.minimum(path.min(axis=0), 0), SIZE - SIDE - np.maximum(path.max(axis=0), 0)
    moving = np.rint(rng.uniform(low, high) + path).astype(np.int64)
    while True:
        still = np.repeat(rng.integers(0, SIZE - SIDE, (1, 2)), FRAMES, axis=0)
        if (np.abs(still - moving).max(axis=1) > SIDE).all():
            break
    frames = np.repeat(back[None], FRAMES, axis=0).copy()
    for boxes, texture in zip((still, moving), textures, strict=True):
        for frame, (top, left) in zip(frames, boxes, strict=True):
            frame[top : top + SIDE, left : left + SIDE] = texture
    return frames, moving, still


def hits(heat: torch.Tensor, boxes: Boxes) -> bool:
    """Tell whether the largest value of `[t, h, w]` lies in the box of its time slice."""
    t, row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    y, x = (row + 0.5) * SIZE / heat.shape[1], (column + 0.5) * SIZE / heat.shape[2]
    frames = FRAMES // heat.shape[0]
    middle = boxes[t * frames : (t + 1) * frames].mean(axis=0)
    slack = SIZE / heat.shape[1] / 2  # half a token: what a token that touches the square may be off
    return bool((middle - slack <= (y, x)).all() and ((y, x) <= middle + SIDE + slack).all())


def fitted(loaded: Frozen, train: int) -> None:
    """Fit the last layer to tell directions."""
    rows, labels = [], []
    for number in range(train):
        for label_id, direction in enumerate(DIRECTIONS):
            rows.append(clip_features(loaded, as_clip(planted_clip(direction, number)[0]))["pooled"].numpy())
            labels.append(label_id)
    probe = fit_linear(np.stack(rows).astype(np.float64), np.array(labels), penalty=1.0, num_classes=len(DIRECTIONS))
    with torch.no_grad():
        loaded.model.classifier.weight.copy_(torch.from_numpy(probe.weight))
        loaded.model.classifier.bias.copy_(torch.from_numpy(probe.bias))


def as_clip(frames: Frames) -> torch.Tensor:
    """Return uint8 `[1, T, C, H, W]`."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)[None]


def wilson(share: float, count: int) -> list[float]:
    """Return the 95 % interval of a share."""
    middle, half = share + 1.92 / count, 1.96 * np.sqrt(share * (1 - share) / count + 0.96 / count**2)
    return [float((middle - half) / (1 + 3.84 / count)), float((middle + half) / (1 + 3.84 / count))]


def pointing(model: VideoMAEForVideoClassification, loaded: Frozen, clips: int, occluded: int) -> dict[str, object]:
    """Play the game on new clips."""
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[bool, bool]]] = {"rollout": [], "gradient": [], "occlusion": [], "random": []}
    correct = 0
    for number in range(clips):
        direction = list(DIRECTIONS)[number % len(DIRECTIONS)]
        frames, moving, still = planted_clip(direction, 10_000 + number)
        pixel_values = normalized(as_clip(frames), loaded.processor, device=model.device)
        label_id = list(DIRECTIONS).index(direction)
        with torch.no_grad():
            correct += int(model(pixel_values).logits.argmax()) == label_id
        heats = {
            "rollout": rollout(model.videomae, pixel_values),
            "gradient": gradient_attention(model, pixel_values, label_id),
            "random": torch.from_numpy(rng.random((8, 8, 8))),
        }
        if number < occluded:
            heats["occlusion"] = occlusion(model, pixel_values, label_id)
        for name, heat in heats.items():
            found[name].append((hits(heat, moving), hits(heat, still)))
    result: dict[str, object] = {"clips": clips, "accuracy": correct / clips}
    for name, pairs in found.items():
        if pairs:
            on_moving, on_still = (float(np.mean([pair[place] for pair in pairs])) for place in (0, 1))
            result[name] = {
                "clips": len(pairs),
                "moving": on_moving,
                "interval": wilson(on_moving, len(pairs)),
                "still": on_still,
            }
    return result


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=40, help="clips of each direction to fit on")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--occluded", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    loaded = load_frozen("default", tuple(DIRECTIONS), clip=None, device="cpu")
    fitted(loaded, options.train)
    torch.manual_seed(0)
    untrained = VideoMAEForVideoClassification(loaded.model.config).eval()
    result = {
        "trained": pointing(loaded.model, loaded, options.clips, options.occluded),
        "untrained": pointing(untrained, loaded, options.clips, 0),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
