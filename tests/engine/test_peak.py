from __future__ import annotations

import time

import pytest
import torch

from videomae.engine.peak import peak_flops_per_second


@pytest.fixture(autouse=True)
def _measured_anew() -> None:
    peak_flops_per_second.cache_clear()


def test_the_processor_is_measured_once_in_under_a_second_in_flops_that_a_processor_can_have() -> None:
    start = time.process_time()
    peak = peak_flops_per_second("cpu", torch.float32)
    assert time.process_time() - start < 1.0
    assert 1e8 < peak < 1e14
    start = time.process_time()
    assert peak_flops_per_second("cpu", torch.float32) == peak
    assert time.process_time() - start < 0.01


def test_no_multiplication_of_a_model_is_faster_than_the_peak() -> None:
    peak = peak_flops_per_second("cpu", torch.float32)
    left, right = torch.randn(512, 384), torch.randn(384, 1536)  # of an MLP
    best = min(_seconds(left, right) for _ in range(20))
    assert 2 * 512 * 384 * 1536 / best < 1.2 * peak


def test_measuring_neither_reads_nor_changes_the_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    peak_flops_per_second("cpu", torch.float32)
    assert torch.equal(torch.rand(4), expected)


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    left @ right
    return time.perf_counter() - start
