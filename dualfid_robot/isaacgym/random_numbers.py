"""Random numbers of other people's code, which draws them from the generators that a whole process shares."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def put_back() -> Iterator[None]:
    """After the block, the global generators go on as if nothing had been drawn in it."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


class RandomNumbers:
    """The states of torch's, NumPy's and Python's global generators that one pool has for itself."""

    def __init__(self, seed: int) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin anew."""
        self._torch = torch.Generator().manual_seed(seed).get_state()
        # NumPy's global generator has the state of a legacy one, which takes 32 bits.
        self._numpy: Any = np.random.RandomState(seed % 2**32).get_state()
        self._python = random.Random(seed).getstate()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Within the block, the global generators go on from here; others' states are theirs again afterwards."""
        with put_back():
            torch.set_rng_state(self._torch)
            np.random.set_state(self._numpy)
            random.setstate(self._python)
            try:
                yield
            finally:
                self._torch, self._numpy, self._python = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes, in plain lists and tensors."""
        name, keys, position, has_gauss, gauss = self._numpy
        version, words, next_gauss = self._python
        return {
            "torch": self._torch,
            "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
            "python": [version, list(words), next_gauss],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        name, keys, position, has_gauss, gauss = state["numpy"]
        version, words, next_gauss = state["python"]
        self._torch = state["torch"]
        self._numpy = (name, keys.numpy().astype(np.uint32), position, has_gauss, gauss)
        self._python = (version, tuple(words), next_gauss)
