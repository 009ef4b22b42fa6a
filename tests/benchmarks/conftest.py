import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The benchmarks are no part of the installed package: they are found from the root of the checkout.
sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
