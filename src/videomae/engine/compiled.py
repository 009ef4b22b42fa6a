"""Compilation part by part: each transformer block, and each function that reads or writes much and computes little.

Blocks of one shape share one compiled program, so that a model of 40 blocks compiles as fast as one of 4; a whole
model would take minutes for the same program, written out 40 times.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Literal, TypeVar, cast

import torch
from torch import nn

# Programs of one function: a training run has two to four (encoder, decoder, its last block), and so has each of its
# shapes of a batch. Torch gives up after 8, without a word, and goes on as if nothing were compiled.
MAX_PROGRAMS = 64
Function = TypeVar("Function", bound=Callable[..., object])


def is_worth_compiling(choice: bool | Literal["auto"], device: torch.device) -> bool:
    """Return whether a training run compiles.

    Args:
        choice: auto compiles on CUDA where Triton is there. On a CPU a step of ViT-B is no faster for it.
        device: Where the run computes.
    """
    if choice == "auto":
        return device.type == "cuda" and find_spec("triton") is not None
    return choice


def compile_each(parts: Iterable[nn.Module]) -> int:
    """Compile modules in place; their names, parameters and state dicts stay what they are.

    Compilation happens at the first call, once for each shape of the inputs.

    Args:
        parts: Modules, alike or not.

    Returns:
        How many there are.
    """
    _allow_programs()
    number = 0
    for part in parts:
        part.compile(dynamic=False)
        number += 1
    return number


@functools.cache
def compiled(function: Function) -> Function:
    """Return a compiled version of a function, the same one every time."""
    _allow_programs()
    return cast("Function", torch.compile(function, dynamic=False))


def uncompiled() -> AbstractContextManager[None]:
    """Return a context in which compiled parts run as written: what is done once is not worth a compilation."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and to say so would import the compiler
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _allow_programs() -> None:
    import torch._dynamo.config as settings

    settings.recompile_limit = max(settings.recompile_limit, MAX_PROGRAMS)
