"""Textures and shapes that procedural videos are drawn from: small images, made once for a seed.

Textures tile by reflection and hold values in [-1, 1]; shapes are signed distances, negative inside, over the square
[-1, 1]. Both are drawn on the CPU by named generators, so that every device samples the very same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae.engine.seeding import numpy_generator

TEXTURE_SIZE = 96  # pixels: a frame of 64 to 112 pixels shows one to two textures across
SHAPE_SIZE = 48  # pixels: a bilinear distance field is smooth far below the pixels of a frame

FloatArray = NDArray[np.float64]


@lru_cache(maxsize=1)  # a process that draws on two devices makes them once
def texture_bank(seed: int, count: int) -> Tensor:
    """Return textures `[count, 3, TEXTURE_SIZE, TEXTURE_SIZE]` float32 in [-1, 1].

    The kinds take turns: noise of any roughness, gratings, checkers, cells, blobs, dots, and mixtures of two.
    """
    textures = []
    for number in range(count):
        rng = numpy_generator(seed, "procedural", "texture", number)
        texture = _coloured(_PATTERNS[number % len(_PATTERNS)](rng), rng)
        if number % 3 == 2:  # a second pattern shows through where a third one says so
            other = _coloured(_PATTERNS[int(rng.integers(len(_PATTERNS)))](rng), rng)
            weight = 0.5 + 0.5 * np.tanh(4.0 * _noise(rng))
            texture = weight * texture + (1.0 - weight) * other
        textures.append(texture)
    return torch.from_numpy(np.stack(textures).astype(np.float32))


@lru_cache(maxsize=1)
def shape_bank(seed: int, count: int) -> Tensor:
    """Return signed distances `[count, 1, SHAPE_SIZE, SHAPE_SIZE]` float32, about 1 per half side.

    The kinds take turns: harmonic outlines, polygons, stars, superellipses, rings, crescents, crosses, and figures of
    a few limbs.
    """
    centres = (np.arange(SHAPE_SIZE) + 0.5) / SHAPE_SIZE * 2.0 - 1.0
    x, y = np.meshgrid(centres, centres)  # [S, S] each, x along columns
    shapes = []
    for number in range(count):
        rng = numpy_generator(seed, "procedural", "shape", number)
        shapes.append(_OUTLINES[number % len(_OUTLINES)](x, y, rng))
    return torch.from_numpy(np.stack(shapes)[:, None].astype(np.float32))


# ---- textures: patterns [S, S], about [-1, 1] --------------------------------------------------------------------


def _noise(rng: np.random.Generator) -> FloatArray:
    roughness = rng.uniform(0.7, 2.8)
    lowest = float(rng.choice([0.0, 0.0, 4.0, 10.0]))  # periods per side below which there is nothing
    frequency = np.fft.fftfreq(TEXTURE_SIZE, 1.0 / TEXTURE_SIZE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    amplitude = np.where(radius > lowest, np.maximum(radius, 1.0) ** -roughness, 0.0)
    amplitude[0, 0] = 0.0
    white = rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE))
    noise = np.real(np.fft.ifft2(np.fft.fft2(white) * amplitude))
    return np.asarray(np.tanh(noise / (1.5 * noise.std() + 1e-9)))


def _phase(rng: np.random.Generator, highest: float) -> FloatArray:
    """Return the phase of a plane wave of up to `highest` periods per side."""
    ramp = 2.0 * math.pi * np.arange(TEXTURE_SIZE) / TEXTURE_SIZE
    periods = math.exp(rng.uniform(math.log(1.0), math.log(highest)))
    angle = rng.uniform(0.0, 2.0 * math.pi)
    return np.asarray(
        periods * (math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]) + rng.uniform(0.0, 2 * math.pi)
    )


def _grating(rng: np.random.Generator) -> FloatArray:
    waves = sum(np.sin(_phase(rng, 16.0)) for _ in range(int(rng.integers(1, 4))))
    sharpness = math.exp(rng.uniform(math.log(0.7), math.log(8.0)))
    return np.asarray(np.tanh(sharpness * waves))


def _checker(rng: np.random.Generator) -> FloatArray:
    periods = rng.uniform(2.0, 10.0)
    ramp = 2.0 * math.pi * np.arange(TEXTURE_SIZE) / TEXTURE_SIZE * periods
    return np.asarray(np.tanh(6.0 * np.sin(ramp)[None, :] * np.sin(ramp * rng.uniform(0.5, 2.0))[:, None]))


def _cells(rng: np.random.Generator) -> FloatArray:
    count = int(rng.integers(6, 60))
    pixels = np.arange(TEXTURE_SIZE) / TEXTURE_SIZE
    points = rng.uniform(0.0, 1.0, (count, 2))
    values = rng.uniform(-1.0, 1.0, count)
    distance = np.hypot(
        pixels[None, None, :] - points[:, 0, None, None], pixels[None, :, None] - points[:, 1, None, None]
    )  # [count, S, S]
    nearest = np.partition(distance, 1, axis=0)[:2]
    cells = values[distance.argmin(axis=0)]
    if rng.random() < 0.5:  # dark joints between the cells
        cells = np.where(nearest[1] - nearest[0] < 0.02, -1.0, cells)
    return np.asarray(cells)


def _blobs(rng: np.random.Generator) -> FloatArray:
    return np.asarray(np.tanh(rng.uniform(3.0, 12.0) * (_noise(rng) - rng.uniform(-0.4, 0.4))))


def _dots(rng: np.random.Generator) -> FloatArray:
    periods = rng.uniform(2.0, 9.0)
    ramp = 2.0 * math.pi * np.arange(TEXTURE_SIZE) / TEXTURE_SIZE * periods
    return np.asarray(np.tanh(8.0 * (np.cos(ramp)[None, :] + np.cos(ramp)[:, None] - rng.uniform(0.2, 1.4))))


def _coloured(pattern: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Give a pattern `[S, S]` two colours and a faint, differently coloured structure: `[3, S, S]` in [-1, 1]."""
    direction = rng.uniform(-1.0, 1.0, 3) + rng.choice([-1.0, 1.0]) * rng.uniform(0.0, 1.5)  # often close to grey
    direction = direction / np.abs(direction).max()
    faint = rng.uniform(0.0, 0.4) * rng.uniform(-1.0, 1.0, 3)
    coloured = direction[:, None, None] * pattern + faint[:, None, None] * _noise(rng)
    return np.asarray(np.clip(coloured, -1.0, 1.0))


_PATTERNS: tuple[Callable[[np.random.Generator], FloatArray], ...] = (
    _noise,
    _grating,
    _blobs,
    _noise,
    _cells,
    _checker,
    _noise,
    _dots,
)


# ---- shapes: signed distances [S, S], inside about the unit circle ------------------------------------------------


def _harmonic(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    angle = np.arctan2(y, x)
    radius = np.full_like(x, 0.6)
    for order in range(2, 7):
        radius += 0.6 * rng.normal(0.0, 0.3) / order * np.cos(order * angle + rng.uniform(0.0, 2 * math.pi))
    return np.asarray(np.hypot(x, y) - np.clip(radius, 0.15, 0.85))


def _polygon(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    sides = int(rng.integers(3, 9))
    inner = 0.85 * math.cos(math.pi / sides)
    turns = 2.0 * math.pi * np.arange(sides) / sides + rng.uniform(0.0, 2 * math.pi)
    planes = [x * math.cos(turn) + y * math.sin(turn) - inner for turn in turns]
    return np.asarray(np.max(planes, axis=0))


def _star(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    points = int(rng.integers(3, 9))
    depth = rng.uniform(0.3, 0.75)
    triangle = np.abs((np.arctan2(y, x) * points / (2 * math.pi)) % 1.0 - 0.5) * 2.0  # 1 at the points
    return np.asarray((np.hypot(x, y) - 0.85 * (depth + (1.0 - depth) * triangle)) * 0.7)


def _superellipse(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    power = math.exp(rng.uniform(math.log(0.8), math.log(8.0)))
    width, height = rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8)
    level = (np.abs(x / width) ** power + np.abs(y / height) ** power) ** (1.0 / power)
    return np.asarray((level - 1.0) * min(width, height))


def _ring(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    return np.asarray(np.abs(np.hypot(x, y) - 0.6) - rng.uniform(0.08, 0.25))


def _crescent(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    bite = np.hypot(x - rng.uniform(0.3, 0.6), y) - rng.uniform(0.45, 0.7)
    return np.asarray(np.maximum(np.hypot(x, y) - 0.8, -bite))


def _cross(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    arm = rng.uniform(0.12, 0.35)
    bars = [np.maximum(np.abs(a) - 0.8, np.abs(b) - arm) for a, b in ((x, y), (y, x))]
    return np.asarray(np.minimum(*bars))


def _limbs(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw a union of bars that start near the centre: sticks, arrows, figures."""
    distance = np.full_like(x, 9.0)
    for _ in range(int(rng.integers(1, 6))):
        start, angle = rng.uniform(-0.2, 0.2, 2), rng.uniform(0.0, 2 * math.pi)
        end = rng.uniform(0.4, 0.75) * np.array([math.cos(angle), math.sin(angle)])
        along = end - start
        part = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along), 0.0, 1.0)
        bar = np.hypot(x - start[0] - part * along[0], y - start[1] - part * along[1]) - rng.uniform(0.08, 0.18)
        distance = np.minimum(distance, bar)
    return distance


_OUTLINES: tuple[Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray], ...] = (
    _harmonic,
    _polygon,
    _star,
    _superellipse,
    _limbs,
    _harmonic,
    _ring,
    _crescent,
    _cross,
    _limbs,
)
