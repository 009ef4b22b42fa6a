"""Copies to a GPU beside its work: the next batch travels while the step before it is still being computed."""

from __future__ import annotations

import torch
from torch import Tensor


class DeviceCopies:
    """Copies tensors to a device.

    On a GPU they go through a stream of their own. The host is ahead of the GPU by most of a step, so a copy that is
    asked for at the start of a step runs beside the computation of the last one, and the step waits for it there,
    not here. From memory that is not page-locked the host waits for the copy.

    Args:
        device: Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device; what is computed from it there comes after the copy."""
        if self._stream is None:
            return tensor.to(self.device, non_blocking=True)
        with torch.cuda.stream(self._stream):
            copy = tensor.to(self.device, non_blocking=True)
        main = torch.cuda.current_stream(self.device)
        main.wait_stream(self._stream)
        copy.record_stream(main)  # its memory is not used again before the step is done with it
        return copy
