"""One measurement of `benchmarks/loader.py` in a process of its own: prints its figures as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from benchmarks.loader import opening, read


def main() -> None:
    """Measure what the arguments say."""
    torch.set_num_threads(1)
    what, manifest, *numbers = sys.argv[1:]
    found = opening(Path(manifest)) if what == "open" else read(Path(manifest), *map(int, numbers))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
