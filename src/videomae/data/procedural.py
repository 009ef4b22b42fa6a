"""Procedural videos: textured objects that move, turn, grow, bend and hide each other before a moving camera.

One definition in torch, for the CPU (in data workers) and, in batches, for any device. Every number of clip `i` is a
hash of (seed, i, slot), computed in 64-bit integers, so that all devices draw the same parameters; pixels then agree
up to the rounding of float32. Nothing is read from files and there are no labels.

Lengths are in half frame sides (the frame is the square [-1, 1]), times in frames from the middle of the clip.

Source: Yu et al. 2024 (arXiv 2410.24213), whose progression of procedural videos motivates the ingredients.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae.data.procedural_banks import shape_bank, texture_bank
from videomae.engine.seeding import derive_seed
from videomae.errors import ConfigError

MAX_OBJECTS = 4
NUM_TEXTURES = 240
NUM_SHAPES = 160
NOISE_VALUES = 1 << 16  # normal values, read from a random place for every frame
MIN_SIZE = 16  # pixels; below this an object is smaller than its own soft edge
MAX_DRAWS = 512  # slots of the hash that one clip may use besides one for each frame

# Odd constants of splitmix64 (Steele et al. 2014), as signed 64-bit integers.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


class Affine(NamedTuple):
    """Maps of the plane, one for each clip and frame: `x' = xx x + xy y + x0`, and the same for y."""

    xx: Tensor
    """`[B, T]`, and so are the others."""
    xy: Tensor
    x0: Tensor
    yx: Tensor
    yy: Tensor
    y0: Tensor


class ProceduralVideos:
    """The clips of a seed.

    Args:
        seed: Another seed, other clips.
        num_frames: T.
        size: Height and width in pixels, at least 16.
        device: Where clips are drawn.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, seed: int, *, num_frames: int, size: int, device: torch.device | str = "cpu") -> None:
        if num_frames < 1:
            raise ConfigError(f"num_frames is {num_frames}; a procedural video has at least 1 frame")
        if size < MIN_SIZE:
            raise ConfigError(f"size is {size} pixels; procedural videos need at least {MIN_SIZE}")
        self.key = derive_seed(seed, "procedural")
        self.num_frames = num_frames
        self.size = size
        self.device = torch.device(device)
        self.textures = texture_bank(seed, NUM_TEXTURES).to(self.device)
        self.shapes = shape_bank(seed, NUM_SHAPES).to(self.device)
        noise = torch.randn(NOISE_VALUES, generator=torch.Generator().manual_seed(self.key))
        self.noise = noise.to(self.device)

    @torch.no_grad()
    def clips(self, indices: Tensor) -> Tensor:
        """Draw clips.

        Args:
            indices: `[B]` int64, which clips of the endless set; any number, in any order.

        Returns:
            `[B, T, 3, S, S]` uint8 on the device.
        """
        draws = _Draws(hash_uniforms(self.key, indices.to(self.device), MAX_DRAWS + self.num_frames))
        T, S = self.num_frames, self.size
        times = torch.arange(T, device=self.device, dtype=torch.float32) - (T - 1) / 2  # [T]
        centres = (torch.arange(S, device=self.device, dtype=torch.float32) + 0.5) * (2.0 / S) - 1.0  # [S]
        camera = _camera(draws, times)
        frames = self._background(draws, times, camera, centres)  # [B, 3, T, S, S]
        count = draws.integer(1, MAX_OBJECTS)  # [B]
        for number in range(MAX_OBJECTS):
            # Every slot is drawn for every clip, so that the slots' numbers never depend on the values.
            present = (number < count).float()
            self._add_object(frames, draws, times, camera, centres, present)
        self._light(frames, draws, times, centres)
        return frames.transpose(1, 2).mul_(255.0).add_(0.5).clamp_(0.0, 255.0).to(torch.uint8)

    def _background(self, draws: _Draws, times: Tensor, camera: Affine, centres: Tensor) -> Tensor:
        texture = _recoloured(self.textures, draws, contrast=(0.10, 0.45))
        scale, angle = draws.log_uniform(0.12, 1.0), draws.uniform(0.0, 2 * math.pi)
        drift = [draws.uniform(-0.05, 0.05) * draws.chance(0.3) for _ in "xy"]
        start = [draws.uniform(-3.0, 3.0) for _ in "xy"]
        still = torch.zeros_like(times)
        own = _similarity(
            scale[:, None] + still,
            angle[:, None] + still,
            *(a[:, None] + b[:, None] * times for a, b in zip(start, drift, strict=True)),
        )
        return _sample(texture, *_apply(_compose(own, camera), centres), padding="reflection")

    def _add_object(
        self, frames: Tensor, draws: _Draws, times: Tensor, camera: Affine, centres: Tensor, present: Tensor
    ) -> None:
        """Lay one object of each clip over the frames `[B, 3, T, S, S]`, in place."""
        local, radius = _object_motion(draws, times)
        bend = [draws.normal(0.25)[:, None] * draws.chance(0.4)[:, None] for _ in "xy"]
        bend_speed, bend_phase = draws.uniform(0.2, 1.2)[:, None], draws.uniform(0.0, 2 * math.pi)[:, None]
        swing = torch.sin(bend_speed * times + bend_phase)  # [B, T]
        x, y = _apply(_compose(local, camera), centres)  # [B, T, S, S] each
        bend_x, bend_y = (_wide(one * swing) for one in bend)
        x, y = x + bend_x * (y * y), y + bend_y * (x * x)

        shapes = self.shapes[draws.integer(0, NUM_SHAPES - 1)]
        softness = draws.log_uniform(1.0, 2.5)
        distance = _sample(shapes, x, y, padding="border")  # [B, 1, T, S, S]
        pixels = (radius * (self.size / 2) / softness[:, None])[:, None, :, None, None]
        opacity = present * torch.where(draws.chance(0.85) > 0, torch.ones_like(present), draws.uniform(0.4, 0.9))
        cover = (0.5 - distance * pixels).clamp_(0.0, 1.0).mul_(opacity[:, None, None, None, None])

        texture = _recoloured(self.textures, draws, contrast=(0.05, 0.6))
        detail = draws.log_uniform(0.25, 0.9)
        offsets = [draws.uniform(-3.0, 3.0) for _ in "xy"]
        texture_x, texture_y = (
            one * _wide(detail[:, None]) + _wide(offset[:, None]) for one, offset in zip((x, y), offsets, strict=True)
        )
        colours = _sample(texture, texture_x, texture_y, padding="reflection")  # [B, 3, T, S, S]
        shade = [_wide(draws.uniform(-0.25, 0.25)[:, None]) for _ in "xy"]
        colours *= (1.0 + (shade[0] * x + shade[1] * y).clamp_(-0.5, 0.5))[:, None]
        frames += cover * (colours - frames)

    def _light(self, frames: Tensor, draws: _Draws, times: Tensor, centres: Tensor) -> None:
        """Apply brightness that varies in time and space, greyness and noise to `[B, 3, T, S, S]`, in place."""
        B, _, T, S, _ = frames.shape
        ramp = draws.normal(0.012)[:, None] * draws.chance(0.4)[:, None]
        flicker = (draws.uniform(0.0, 0.15) * draws.chance(0.2))[:, None]
        speed, phase = draws.uniform(0.3, 2.5)[:, None], draws.uniform(0.0, 2 * math.pi)[:, None]
        gain = draws.log_uniform(0.75, 1.3)[:, None] + ramp * times + flicker * torch.sin(speed * times + phase)
        slope = [draws.normal(0.2) * draws.chance(0.4) for _ in "xy"]
        plane = slope[0][:, None, None] * centres + slope[1][:, None, None] * centres[:, None]  # [B, S, S]
        frames *= gain[:, None, :, None, None] * (1.0 + plane.clamp(-0.6, 0.6))[:, None, None]
        grey = torch.maximum(draws.chance(0.25), draws.uniform(0.0, 1.0) * draws.chance(0.6))
        frames += grey[:, None, None, None, None] * (frames.mean(dim=1, keepdim=True) - frames)
        strength = draws.log_uniform(0.003, 0.05) * draws.chance(0.6)
        # Frames of 256 pixels and more read the noise round and round; the values of smaller ones must not change.
        span = NOISE_VALUES - S * S if S * S < NOISE_VALUES else NOISE_VALUES
        starts = (draws.take(T) * span).long()  # [B, T]
        grains = torch.arange(S * S, device=frames.device)
        noise = self.noise[(starts[..., None] + grains) % NOISE_VALUES].view(B, T, S, S)
        frames += (strength[:, None, None, None] * noise)[:, None]


def hash_uniforms(key: int, indices: Tensor, count: int) -> Tensor:
    """Return numbers in [0, 1) that depend on (key, index, slot) alone: `[B, count]` float32.

    Args:
        key: Any integer of 63 bits.
        indices: `[B]` int64.
        count: Slots.

    Source: splitmix64's finaliser (Steele et al. 2014), applied twice; the top 24 bits are kept, which float32 holds.
    """
    slots = torch.arange(count, device=indices.device, dtype=torch.int64)
    state = _mixed(indices[:, None] * _GAMMA + key)
    state = _mixed(state + slots * _GAMMA + _GAMMA)  # [B, count]
    return _shifted(state, 40).float() * 2.0**-24


def _mixed(state: Tensor) -> Tensor:
    state = (state ^ _shifted(state, 30)) * _MIX_1
    state = (state ^ _shifted(state, 27)) * _MIX_2
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shift int64 values to the right, filling with zeros, as unsigned integers do."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


class _Draws:
    """Hands out the slots of `hash_uniforms` in order; methods return `[B]` float32 unless they say otherwise."""

    def __init__(self, uniforms: Tensor) -> None:
        self.uniforms = uniforms
        self.used = 0

    def take(self, count: int) -> Tensor:
        """Return the next `count` slots, `[B, count]` in [0, 1)."""
        start, self.used = self.used, self.used + count
        assert self.used <= self.uniforms.shape[1], "a clip draws more numbers than MAX_DRAWS and its frames"
        return self.uniforms[:, start : self.used]

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * self.take(1)[:, 0]

    def log_uniform(self, low: float, high: float) -> Tensor:
        return torch.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, std: float) -> Tensor:
        """Return about normal values: the sum of four uniform ones, which never lies far out."""
        return (self.take(4).sum(dim=1) - 2.0) * (std * math.sqrt(3.0))

    def chance(self, probability: float) -> Tensor:
        """Return 1 with a probability, else 0."""
        return (self.take(1)[:, 0] < probability).float()

    def integer(self, low: int, high: int) -> Tensor:
        """Return int64 values from `low` to `high`, both included."""
        return low + (self.take(1)[:, 0] * (high - low + 1)).long()


def _camera(draws: _Draws, times: Tensor) -> Affine:
    """Map pixels to the world: pan, zoom, roll and shake; every third camera stands still."""
    moves = draws.chance(0.65)[:, None]
    roll = draws.normal(0.02)[:, None] * draws.chance(0.4)[:, None]
    zoom = draws.normal(0.012)[:, None] * draws.chance(0.4)[:, None]
    speed, direction = draws.log_uniform(0.003, 0.10), draws.uniform(0.0, 2 * math.pi)
    shake, pace = (
        draws.log_uniform(0.005, 0.06)[:, None] * draws.chance(0.3)[:, None],
        draws.uniform(0.5, 2.5)[:, None],
    )
    places = []
    for along in (torch.cos(direction), torch.sin(direction)):
        phase = draws.uniform(0.0, 2 * math.pi)[:, None]
        places.append(moves * ((speed * along)[:, None] * times + shake * torch.sin(pace * times + phase)))
    return _similarity(torch.exp(moves * zoom * times), moves * roll * times, *places)


def _object_motion(draws: _Draws, times: Tensor) -> tuple[Affine, Tensor]:
    """Return the map from the world to an object's own coordinates, and its radius `[B, T]`.

    A path is a line with acceleration through a random place of the frame, or bounces between two walls, and a circle
    or shake may be added.
    """
    radius = draws.log_uniform(0.16, 0.9)[:, None]
    growth = draws.normal(0.02)[:, None] * draws.chance(0.4)[:, None]
    pulse = (draws.uniform(0.0, 0.25) * draws.chance(0.2))[:, None]
    pulse_speed, pulse_phase = draws.uniform(0.2, 1.2)[:, None], draws.uniform(0.0, 2 * math.pi)[:, None]
    radius = radius * torch.exp(growth * times + pulse * torch.sin(pulse_speed * times + pulse_phase))  # [B, T]

    spin = draws.normal(0.12)[:, None] * draws.chance(0.5)[:, None]
    angle = draws.uniform(0.0, 2 * math.pi)[:, None] + spin * times  # [B, T]
    aspect = torch.exp(draws.normal(0.25))[:, None]

    moves = draws.chance(0.85)
    speed, direction = draws.log_uniform(0.01, 0.25) * moves, draws.uniform(0.0, 2 * math.pi)
    middle = draws.uniform(-0.5, 0.5)[:, None] * len(times)  # the time at which the path meets its place
    turns = draws.chance(0.3)
    circle, shake = turns * draws.uniform(0.08, 0.4), turns * draws.chance(0.5)
    pace, phase = draws.uniform(0.25, 1.1)[:, None], draws.uniform(0.0, 2 * math.pi)[:, None]
    line = 1.0 - draws.chance(0.6) * turns  # most circles stay where they are
    bounces = draws.chance(0.25)[:, None]
    tilt = draws.uniform(0.0, 2 * math.pi)
    sense = 1.0 - 2.0 * draws.chance(0.5)
    places = []
    for number, along in enumerate((torch.cos(direction), torch.sin(direction))):
        acceleration = (draws.normal(0.006) * draws.chance(0.3) * moves)[:, None]
        place = draws.uniform(-0.8, 0.8)[:, None]
        since = times - middle
        straight = (speed * along * line)[:, None] * since + acceleration * since * since
        # A shake swings along one direction, a circle goes round either way.
        sway = torch.cos(pace * times + phase) if number == 0 else sense[:, None] * torch.sin(pace * times + phase)
        swing = (torch.cos(tilt) if number == 0 else torch.sin(tilt))[:, None] * torch.cos(pace * times + phase)
        sway = torch.where(shake[:, None] > 0, swing, sway)
        path = place + straight + circle[:, None] * sway
        folded = 1.0 - torch.abs((path + 1.0).remainder(4.0) - 2.0)  # bounces between -1 and 1
        places.append(torch.where(bounces > 0, folded, path))
    x0, y0 = places
    cos, sin = torch.cos(angle), torch.sin(angle)
    wide, high = 1.0 / (radius * aspect), aspect / radius
    return Affine(
        wide * cos, wide * sin, -wide * (cos * x0 + sin * y0), -high * sin, high * cos, high * (sin * x0 - cos * y0)
    ), radius


def _similarity(scale: Tensor, angle: Tensor, x0: Tensor, y0: Tensor) -> Affine:
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    return Affine(cos, -sin, x0, sin, cos, y0)


def _compose(outer: Affine, inner: Affine) -> Affine:
    """Return `outer(inner(.))`."""
    return Affine(
        outer.xx * inner.xx + outer.xy * inner.yx,
        outer.xx * inner.xy + outer.xy * inner.yy,
        outer.xx * inner.x0 + outer.xy * inner.y0 + outer.x0,
        outer.yx * inner.xx + outer.yy * inner.yx,
        outer.yx * inner.xy + outer.yy * inner.yy,
        outer.yx * inner.x0 + outer.yy * inner.y0 + outer.y0,
    )


def _apply(affine: Affine, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Map the pixels of all frames: x and y, each `[B, T, S, S]`."""
    across, down = centres, centres[:, None]
    x = _wide(affine.xx) * across + (_wide(affine.xy) * down + _wide(affine.x0))
    y = _wide(affine.yx) * across + (_wide(affine.yy) * down + _wide(affine.y0))
    return x, y


def _wide(values: Tensor) -> Tensor:
    """Turn `[B, T]` into `[B, T, 1, 1]`."""
    return values[..., None, None]


def _recoloured(bank: Tensor, draws: _Draws, *, contrast: tuple[float, float]) -> Tensor:
    """Choose a texture for each clip and give it new colours around a random one: `[B, 3, s, s]`."""
    texture = bank[draws.integer(0, len(bank) - 1)]
    mixing = draws.take(9).view(-1, 3, 3) * 2.0 - 1.0
    mixing = mixing / mixing.abs().sum(dim=2, keepdim=True).clamp_min(0.5)
    strength = draws.log_uniform(*contrast)
    base = 0.12 + 0.76 * draws.take(3)
    mixed = torch.einsum("bij,bjhw->bihw", mixing * (2.0 * strength)[:, None, None], texture)
    return mixed + base[:, :, None, None]


def _sample(images: Tensor, x: Tensor, y: Tensor, *, padding: str) -> Tensor:
    """Read images `[B, C, s, s]` at places `[B, T, S, S]`, bilinear: `[B, C, T, S, S]`."""
    B, T, S, _ = x.shape
    grid = torch.stack((x, y), dim=-1).view(B, T * S, S, 2)
    read = F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return read.view(B, -1, T, S, S)
