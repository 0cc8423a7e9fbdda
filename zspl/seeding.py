"""Seeds for everything random: one number per run, one stream per purpose."""

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, independent of every other purpose.

    Example:
        >>> derive(0, "train", 3) == derive(0, "train", 3) != derive(0, "train", 4)
        True
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, numpy's legacy stream and torch, for libraries that use the globals."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that read the global stream
    torch.manual_seed(seed)


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return numpy's generator for one purpose."""
    return np.random.default_rng(derive(seed, *purpose))
