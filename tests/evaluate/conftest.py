"""A user's own folder with a task for any robot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from any_robot import set_up_user


@pytest.fixture
def users_folder(tmp_path: Path) -> Callable[[Path, tuple[str, ...]], list[str]]:
    """Set up a user's own task for an asset; gives the overrides that find it."""
    return lambda asset, feet: set_up_user(tmp_path, asset, feet)
