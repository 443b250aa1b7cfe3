"""What an object of other people's code remembers: its tensors, arrays and numbers, also in lists and mappings."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

Name = str | int
Path = tuple[Name, ...]

_PLAIN = (bool, int, float, str, type(None))
_HOLDERS = (Tensor, np.ndarray, dict, list, deque)


def remembered(owner: Any) -> dict[Path, Any]:
    """Copies of all that an object remembers, by attribute and place in it.

    Objects of other kinds, such as handles or configurations, are left out, and so is what is in them.
    """
    return {path: _copied(value) for path, value in _leaves(vars(owner))}


def remember(owner: Any, state: dict[Path, Any]) -> None:
    """Give an object what another one of the same class remembered.

    Tensors keep their storage, since others may be views of them. Where two shared it and no longer do, each gets its
    own.
    """
    for path, value in state.items():
        _assign(owner, path, value, in_place=True)
    for path, value in state.items():
        _assign(owner, path, value, in_place=False)


@contextmanager
def undone(owner: Any) -> Iterator[None]:
    """After the block, an object is what it was: the same tensors, arrays and containers, with the same content."""
    held = list(_held(vars(owner)))
    containers = [each for each in held if not isinstance(each, Tensor | np.ndarray)]
    contents = [dict(each) if isinstance(each, dict) else list(each) for each in containers]
    kept = [(each, _copied(each)) for each in held if isinstance(each, Tensor | np.ndarray) and _is_written(each)]
    try:
        yield
    finally:
        for container, content in zip(containers, contents, strict=True):
            container.clear()
            container.update(content) if isinstance(container, dict) else container.extend(content)
        for values, copy in kept:
            values[...] = copy


class Rows:
    """The rows of environments in all tensors and arrays of an object that holds N environments side by side.

    A tensor whose first dimension is a multiple of N has so many rows for each environment. Attributes that hold no
    tensor when this is made are not looked at.
    """

    def __init__(self, owner: Any, num_envs: int) -> None:
        self._owner, self._num_envs = owner, num_envs
        self._names = {path[0] for path, value in _leaves(vars(owner)) if isinstance(value, Tensor | np.ndarray)}

    def beyond(self, active: int) -> dict[Path, np.ndarray]:
        """Copies of those of all environments but the first `active`."""
        return {path: rows.copy() for path, rows in self._views(active)}

    def put_back(self, active: int, kept: dict[Path, np.ndarray]) -> None:
        """Undo whatever has changed since `beyond` gave these."""
        for path, rows in self._views(active):
            if path in kept and kept[path].shape == rows.shape:
                rows[...] = kept[path]

    def _views(self, active: int) -> Iterator[tuple[Path, np.ndarray]]:
        attributes = vars(self._owner)
        for path, value in _leaves({name: attributes[name] for name in self._names}):
            if isinstance(value, Tensor | np.ndarray) and value.ndim and len(value) and not len(value) % self._num_envs:
                rows = value.detach().numpy() if isinstance(value, Tensor) else value
                if rows.flags.writeable and 0 not in rows.strides:
                    yield path, rows[len(rows) // self._num_envs * active :]


def _leaves(container: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Tensors, arrays of numbers and plain values in nested mappings, lists and deques."""
    for key, value in container.items() if isinstance(container, dict) else enumerate(container):
        if type(key) not in (str, int):
            continue
        place = (*path, key)
        if isinstance(value, Tensor | np.generic) or type(value) in _PLAIN:
            yield place, value
        elif isinstance(value, np.ndarray):
            if value.dtype.kind in "bif":
                yield place, value
        elif isinstance(value, dict | list | deque):
            yield from _leaves(value, place)


def _held(container: Any) -> Iterator[Any]:
    """A container, and the tensors, arrays and containers in it and in those."""
    yield container
    values = list(container.values() if isinstance(container, dict) else container)
    # Lists of a thousand handles are common: only those kinds are looked at that can hold something.
    kinds = tuple(kind for kind in set(map(type, values)) if issubclass(kind, _HOLDERS))
    for value in values if kinds else ():
        if isinstance(value, dict | list | deque):
            yield from _held(value)
        elif isinstance(value, kinds):
            yield value


def _is_written(value: Tensor | np.ndarray) -> bool:
    """Whether code could have written into it: not into one whose elements share their place."""
    if isinstance(value, Tensor):
        return 0 not in value.stride()
    return value.flags.writeable and 0 not in value.strides


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.item() if isinstance(value, np.generic) else value


def _assign(owner: Any, path: Path, value: Any, in_place: bool) -> None:
    *parents, last = path
    container: Any = vars(owner)
    present: Any
    for key in parents:
        container = container[key]
    present = container.get(last) if isinstance(container, dict) else container[last]
    if isinstance(present, np.ndarray) and isinstance(value, Tensor):
        value = value.numpy()  # as a checkpoint holds arrays
    alike = isinstance(present, Tensor) and isinstance(value, Tensor)
    alike |= isinstance(present, np.ndarray) and isinstance(value, np.ndarray)
    if not alike or present.shape != value.shape:
        container[last] = _copied(value)
    elif in_place:
        present[...] = value
    elif not np.array_equal(present, value, equal_nan=True):
        container[last] = _copied(value)
