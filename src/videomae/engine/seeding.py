"""Every random draw as a function of named numbers: seeds derived by hash, and generators made from them.

A draw that depends on (seed, epoch, sample, purpose) alone is the same whatever the number of workers or
processes, and after a resume. Nothing here touches a global random state.
"""

from __future__ import annotations

from hashlib import blake2b
from operator import index

import numpy as np
import torch

SEED_BITS = 63  # the widest seed that is a non-negative int64 everywhere


def derive_seed(*parts: int | str) -> int:
    """Mix integers and strings into one seed.

    The order and the type of the parts count: `(1, 2)`, `(2, 1)`, `(12,)` and `("1", 2)` give unrelated
    seeds.

    Args:
        parts: What the draw depends on, for example `(seed, epoch, index, "crop")`; NumPy integers count as
            Python's. At least one.

    Returns:
        A number in `[0, 2 ** 63)` that is the same in every process, on every machine and in every version.

    Raises:
        TypeError: If a part is neither an integer nor a string.
        ValueError: If there are no parts.
    """
    if not parts:
        raise ValueError("derive_seed got no parts; a seed depends on something: pass the run's seed at least")
    digest = blake2b(digest_size=8)
    for part in parts:
        # Kind and length before each part: without them ("ab", "c") and ("a", "bc") would hash alike.
        kind, text = ("s", part) if isinstance(part, str) else ("i", str(index(part)))
        encoded = text.encode("utf-8")
        digest.update(f"{kind}{len(encoded)}:".encode("ascii"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "big") >> (64 - SEED_BITS)


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """Return a NumPy generator that depends on `parts` alone; see `derive_seed`."""
    # PCG64 by name: what default_rng() means is NumPy's to change.
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))


def torch_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator that depends on `parts` alone; see `derive_seed`.

    Args:
        parts: As for `derive_seed`.
        device: Where the generator lives. The same seed gives other numbers on another kind of device.
    """
    return torch.Generator(device).manual_seed(derive_seed(*parts))
