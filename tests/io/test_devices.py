"""The precision that a setting names, refused where the device would only emulate it."""

import pytest
import torch

from zspl.errors import SettingsError
from zspl.io import devices

FEATURES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.fixture
def cpu(monkeypatch):
    """Return a function that gives the CPU one of the two bfloat16 instruction sets, or none."""
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")

    def has(feature):
        for name in FEATURES:
            monkeypatch.setattr(torch.cpu, name, lambda name=name: name == feature, raising=False)

    has(None)
    return has


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that says whether the GPU, which is not really there, has bfloat16."""
    monkeypatch.setattr(devices, "chosen", lambda: torch.device("cuda"))

    def has_bfloat16(answer):
        monkeypatch.setattr(devices, "_has_native_bfloat16", lambda _: answer)

    return has_bfloat16


def test_a_cpu_gets_float32_by_name_and_by_auto_whatever_else_it_could(cpu):
    for feature in (None, *FEATURES):
        cpu(feature)
        assert devices.dtype("float32") is torch.float32
        assert devices.dtype("auto") is torch.float32


@pytest.mark.parametrize("feature", FEATURES)
def test_a_cpu_with_bfloat16_instructions_may_be_asked_for_it(cpu, feature):
    cpu(feature)
    assert devices.dtype("bfloat16") is torch.bfloat16


def test_a_cpu_without_bfloat16_instructions_is_refused_with_the_way_out(cpu):
    with pytest.raises(SettingsError, match=r"neither AVX512-BF16 nor AMX; set float32 or auto"):
        devices.dtype("bfloat16")


def test_a_torch_without_the_queries_counts_as_a_cpu_without_bfloat16(cpu, monkeypatch):
    for name in FEATURES:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    with pytest.raises(SettingsError, match="bfloat16"):
        devices.dtype("bfloat16")


@pytest.mark.parametrize("feature", FEATURES)
def test_float16_is_refused_on_every_cpu(cpu, feature):
    cpu(feature)
    with pytest.raises(SettingsError, match="float16, which no CPU computes fast"):
        devices.dtype("float16")


def test_auto_on_a_gpu_is_bfloat16_or_else_float16(gpu):
    gpu(True)
    assert devices.dtype("auto") is torch.bfloat16
    gpu(False)
    assert devices.dtype("auto") is torch.float16
    assert devices.dtype("float16") is torch.float16
    assert devices.dtype("float32") is torch.float32


def test_a_gpu_without_bfloat16_is_refused(gpu):
    gpu(False)
    with pytest.raises(SettingsError, match="this GPU has no native bfloat16"):
        devices.dtype("bfloat16")


def test_an_unknown_precision_is_refused_with_the_nearest_name(cpu):
    with pytest.raises(SettingsError, match=r"dtype is 'bflot16'\. Did you mean 'bfloat16'"):
        devices.dtype("bflot16")


def test_an_unknown_device_is_refused_before_its_precision_is_looked_at(monkeypatch):
    monkeypatch.setenv("ZSPL_DEVICE", "gpu0")
    with pytest.raises(SettingsError, match="ZSPL_DEVICE is 'gpu0'"):
        devices.dtype("auto")


@pytest.mark.parametrize(("local", "expected"), [("0", 0), ("1", 1), ("2", 0)])
def test_each_process_of_a_machine_takes_its_own_gpu_as_long_as_there_are_some(
    monkeypatch, local, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("ZSPL_DEVICE", raising=False)
    monkeypatch.setenv("LOCAL_RANK", local)
    assert devices.chosen() == torch.device("cuda", expected)
    monkeypatch.setenv("ZSPL_DEVICE", "cuda:1")
    assert devices.chosen() == torch.device("cuda", 1)
