"""Time this package's CPU attention beside torch's fused kernel, shape by shape, in processor time.

python -m benchmarks.attention
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import time_in_turn
from videomae.model.cpu_attention import blocked_attention

# Videos, heads, tokens, width of a head: tiny; a frame of few; the encoder's visible tokens; a third of a clip; half
# of the hidden tokens; the decoder, and every dense classification; two clips' worth and four.
SHAPES = (
    (4, 4, 16, 16),
    (8, 6, 64, 64),
    (4, 12, 160, 64),
    (2, 6, 512, 64),
    (1, 6, 864, 64),
    (1, 6, 1568, 64),
    (1, 3, 3136, 64),
    (1, 2, 6272, 64),
)
ROUNDS = 5
CPU = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    torch.set_num_threads(parser.parse_args(arguments).threads)
    head = (
        "dtype",
        "videos x heads x tokens x width",
        "forward, fused: ms",
        "ours: ms",
        "with backward, fused: ms",
        "ours: ms",
    )
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for dtype in (torch.bfloat16, torch.float32):
        for shape in SHAPES:
            times = (*compare(shape, dtype, backward=False), *compare(shape, dtype, backward=True))
            cells = (str(dtype).removeprefix("torch."), "x".join(map(str, shape)), *(f"{1e3 * s:.3f}" for s in times))
            print("| " + " | ".join(cells) + " |", flush=True)


def compare(shape: tuple[int, int, int, int], dtype: torch.dtype, *, backward: bool) -> tuple[float, float]:
    """Return the processor seconds of torch's kernel and of ours, the best of some rounds."""
    videos, num_heads, tokens, width = shape
    # Interleaved in memory, as one projection leaves them.
    fused_projection = torch.randn(videos, tokens, 3, num_heads, width).to(dtype)
    inputs = [one.detach().requires_grad_() for one in fused_projection.permute(2, 0, 3, 1, 4).unbind(0)]
    grad = torch.randn(videos, num_heads, tokens, width).to(dtype)

    def run(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], object]:
        if backward:
            return lambda: torch.autograd.grad(attend(*inputs), inputs, grad)
        return torch.no_grad()(lambda: attend(*inputs))

    ours, theirs = time_in_turn(
        run(blocked_attention), run(F.scaled_dot_product_attention), warmup=1, rounds=ROUNDS, device=CPU
    )
    return min(theirs.processor), min(ours.processor)


if __name__ == "__main__":
    main()
