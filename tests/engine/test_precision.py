import os
import platform
from pathlib import Path

import pytest
import torch

from videomae.engine.precision import autocast, compute_dtype, has_bf16, pick_device
from videomae.errors import ConfigError

CPU = torch.device("cpu")


def test_named_precisions_are_obeyed_on_every_device():
    for device in (CPU, torch.device("mps"), torch.device("cuda")):
        assert compute_dtype("fp32", device) is torch.float32
        assert compute_dtype("bf16", device) is torch.bfloat16


def test_auto_on_the_cpu_agrees_with_the_kernels_list_of_instructions():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or platform.machine() != "x86_64":
        pytest.skip("needs Linux's /proc/cpuinfo on x86_64 as the witness")
    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("ONEDNN_MAX_CPU_ISA holds oneDNN back to other instructions than the processor's")
    flags = set(cpuinfo.read_text().split())
    expected = torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32
    assert compute_dtype("auto", CPU) is expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_f": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "arm64", "neon": True}, False),
        ({"architecture": "arm64", "neon": True, "bf16": True}, True),
    ],
)
def test_auto_asks_for_the_right_instructions(monkeypatch, capabilities, expected):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bf16(CPU) is expected


@pytest.mark.parametrize(
    ("limit", "expected"), [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_BF16", True), ("ALL", True)]
)
def test_what_holds_onednn_back_to_older_instructions_is_obeyed(monkeypatch, limit, expected):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.setenv(name, limit)
        assert has_bf16(CPU) is expected
        monkeypatch.delenv(name)


@pytest.mark.parametrize("answers", [(True, False), (False, True), (False, False), (None, None)])
def test_older_torch_is_asked_by_its_private_names(monkeypatch, answers):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name, answer in zip(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), answers, strict=True):
        if answer is None:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    assert has_bf16(CPU) is any(answers)


def test_auto_is_float32_where_torch_lacks_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert compute_dtype("auto", CPU) is torch.float32


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_auto_on_cuda_follows_the_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bf16(torch.device("cuda")) is expected


def test_auto_on_mps_is_float32():
    assert compute_dtype("auto", torch.device("mps")) is torch.float32


def test_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="precision is 'fp16'; the known ones are auto, bf16 and fp32"):
        compute_dtype("fp16", CPU)


def test_autocast_runs_products_in_bfloat16_and_keeps_weights():
    layer = torch.nn.Linear(4, 4)
    with autocast(CPU, torch.bfloat16):
        out = layer(torch.ones(2, 4))
    assert out.dtype is torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.dtype is torch.float32
    assert layer.weight.grad.dtype is torch.float32


def test_float32_switches_off_an_autocast_around_it():
    layer = torch.nn.Linear(4, 4)
    with autocast(CPU, torch.bfloat16), autocast(CPU, torch.float32):
        assert layer(torch.ones(2, 4)).dtype is torch.float32


def test_autocast_refuses_other_formats():
    with pytest.raises(ConfigError, match=r"asked for torch.float16; steps run in bfloat16 or float32"):
        autocast(CPU, torch.float16)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_device_takes_the_fastest_that_is_there(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == expected
    assert pick_device("cpu") == CPU


def test_missing_device_is_refused_and_the_present_ones_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        ConfigError, match="device is 'cuda', which torch does not find here; it finds cpu: use device auto"
    ):
        pick_device("cuda")


def test_unknown_device_is_refused():
    with pytest.raises(ConfigError, match="device is 'gpu'; the known ones are auto, cpu, cuda and mps"):
        pick_device("gpu")
