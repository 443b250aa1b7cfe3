"""Named arrays in anonymous memory that processes share through a file descriptor."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Mapping

import numpy as np

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of each array, by name."""

_ALIGNMENT = 64


def create(layout: Layout) -> int:
    """Reserve zeroed memory; the descriptor's last copy to close frees it, so that nothing is left behind."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("dualfid_robot")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, sum(_size(*entry) for entry in layout.values()))
    return descriptor


def attach(descriptor: int, layout: Layout) -> dict[str, np.ndarray]:
    """Map the arrays. They keep the mapping alive."""
    memory = mmap.mmap(descriptor, 0)
    arrays, offset = {}, 0
    for name, (shape, dtype) in layout.items():
        arrays[name] = np.ndarray(shape, dtype, buffer=memory, offset=offset)
        offset += _size(shape, dtype)
    return arrays


def _size(shape: tuple[int, ...], dtype: str) -> int:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return max(-(-size // _ALIGNMENT), 1) * _ALIGNMENT
