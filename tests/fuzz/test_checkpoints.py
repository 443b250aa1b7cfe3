"""Damaged checkpoints: what is read is what was written, or the error is one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import DAMAGES, EXAMPLES, Damage, is_one_line
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import load_checkpoint, save_checkpoint
from dualfid_robot.runs.saved_policy import load_policy
from dualfid_robot.train.trainer import Trainer


def same(one: Any, other: Any) -> bool:
    """Whether two contents of checkpoints are the same to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
    return bool(one == other or (one != one and other != other))


@settings(max_examples=EXAMPLES, deadline=None)
@given(damage=DAMAGES)
@example(damage=Damage())
@example(damage=Damage(cut=0.0))
@example(damage=Damage(flips=((0.625, 1),)))  # in a tensor
@example(damage=Damage(flips=((0.0, 1),)))  # in the mark of a zip archive
def test_damaged_bytes(damage: Damage, whole: Path) -> None:
    path = whole.with_name("damaged.pth")
    path.write_bytes(damage.of(whole.read_bytes()))
    try:
        state = load_checkpoint(path)
    except ConfigError as error:
        assert is_one_line(error) and str(error).startswith(f"checkpoint={path}: ")
    else:
        assert same(state, load_checkpoint(whole))


def places(content: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be replaced in a checkpoint's content."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys)[:20]:  # of the robot's digests there are five hundred
        yield (*prefix, key)
        yield from places(content[key], (*prefix, key))


REMOVED = "removed"
REPLACEMENTS = st.one_of(
    st.just(REMOVED),
    st.none(),
    st.integers(-3, 3),
    st.just(10**30),
    st.floats(),
    st.text(max_size=4),
    st.just([]),
    st.just({}),
    st.sampled_from([torch.zeros(0), torch.zeros(1), torch.zeros(3, 3), torch.zeros(2, dtype=torch.int64)]),
    st.just(torch.full((4, 2), np.nan)),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_replaced_content(data: st.DataObject, whole: Path, trainer: Trainer) -> None:
    """Something in it is another thing, as if another program had written it."""
    state = load_checkpoint(whole)
    place = data.draw(st.sampled_from(list(places(state))))
    replacement = data.draw(REPLACEMENTS)
    inner = state
    for key in place[:-1]:
        inner = inner[key]
    if replacement is REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = replacement
    path = whole.with_name("replaced.pth")
    if place == ("format",):
        torch.save(state, path)
    else:
        save_checkpoint(path, {key: value for key, value in state.items() if key != "format"})
    for read in (load_policy, trainer.resume):
        try:
            read(path)
        except ConfigError as error:
            assert is_one_line(error)


def test_a_number_that_no_tensor_holds(whole: Path, trainer: Trainer) -> None:
    """Found by the search."""
    state = load_checkpoint(whole)
    state["env"]["pools"][1]["controls"] = 10**30
    path = whole.with_name("replaced.pth")
    save_checkpoint(path, {key: value for key, value in state.items() if key != "format"})
    with pytest.raises(ConfigError, match="damaged, or of another robot"):
        trainer.resume(path)
