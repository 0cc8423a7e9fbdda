import pytest
import torch

from zspl.models import pretrained


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A weights folder of its own, in a process that has said nothing yet."""
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    pretrained.notify.cache_clear()
    return tmp_path


@pytest.fixture
def images():
    return torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(1))
