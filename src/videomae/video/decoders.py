"""The names of what decodes videos, and whether it is here; without torch, for which `--help` must not wait."""

from __future__ import annotations

import importlib
from typing import Any, Literal, get_args

from videomae.errors import ConfigError

DecoderName = Literal["pyav", "torchcodec", "torchcodec-cuda"]
"""pyav: the FFmpeg that PyAV brings; torchcodec: that of the machine; -cuda: the video unit of an NVIDIA GPU."""

HOW_TO_INSTALL = (
    "pip install 'torchcodec==0.13.*' (for torch 2.11 and later) and the shared libraries of FFmpeg 4 to 8 "
    "(apt install ffmpeg), or leave the decoder at pyav, which is always there"
)


def check_decoder(name: str, *, workers: int = 0) -> None:
    """Check that videos can be decoded so, before anything else is done.

    Args:
        name: One of `DecoderName`.
        workers: Processes besides this one that are to decode.

    Raises:
        ConfigError: If there is no such decoder, torchcodec is not installed or does not load, it or torch has no
            CUDA, or a GPU is to decode in several processes.
    """
    if name not in get_args(DecoderName):
        raise ConfigError(f"the decoder is {name!r}; it is one of {', '.join(get_args(DecoderName))}")
    if name == "pyav":
        return
    if name == "torchcodec-cuda" and workers > 0:
        raise ConfigError(
            f"the decoder is torchcodec-cuda, and videos are to be read by other processes (workers {workers}), "
            "which cannot use CUDA: use workers 0, so that this process reads them, or the decoder torchcodec"
        )
    torchcodec_decoders()
    if name == "torchcodec-cuda":
        _check_cuda()


def torchcodec_decoders() -> Any:
    """Import `torchcodec.decoders`.

    Raises:
        ConfigError: If torchcodec is not installed or does not load beside this torch and FFmpeg.
    """
    try:
        return importlib.import_module("torchcodec.decoders")
    except ImportError as error:
        raise ConfigError(f"the decoder torchcodec is not installed ({error}): {HOW_TO_INSTALL}") from None
    except (RuntimeError, OSError) as error:  # what its libraries lack, on dozens of lines
        torch = importlib.import_module("torch")
        raise ConfigError(
            f"the decoder torchcodec does not load with torch {torch.__version__} "
            f"({str(error).strip().partition(chr(10))[0]}): {HOW_TO_INSTALL}"
        ) from None


def _check_cuda() -> None:
    torch, torchcodec = importlib.import_module("torch"), importlib.import_module("torchcodec")
    if not torch.cuda.is_available():
        raise ConfigError(
            "the decoder is torchcodec-cuda, and torch finds no CUDA device: use the decoder torchcodec or pyav"
        )
    if "+cpu" in torchcodec.__version__:
        raise ConfigError(
            f"the decoder is torchcodec-cuda, and torchcodec {torchcodec.__version__} is built without CUDA: install "
            "a build with it (https://github.com/meta-pytorch/torchcodec#installing-torchcodec), or use torchcodec"
        )
