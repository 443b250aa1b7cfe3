"""`isaacgym.gymtorch`: a simulation's tensors are torch's own here, so wrapping one shares its memory by itself."""

from __future__ import annotations

import torch
from torch import Tensor


def wrap_tensor(tensor: Tensor) -> Tensor:
    """The torch tensor behind a tensor that the gym gave out: the same memory."""
    return tensor


def unwrap_tensor(tensor: Tensor) -> Tensor:
    """A torch tensor as the gym takes it: the same memory.

    Raises:
        TypeError: it is no tensor, or not contiguous, which Isaac Gym does not take either.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"gymtorch.unwrap_tensor: {type(tensor).__name__} is not a torch tensor")
    if not tensor.is_contiguous():
        raise TypeError("gymtorch.unwrap_tensor: the tensor is not contiguous")
    return tensor
