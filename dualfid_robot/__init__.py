"""Robot policies trained in two simulators at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualfid_robot.adapters.make import make_vec as make_vec

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`make_vec` is loaded when it is first asked for: it needs torch, an engine and Gymnasium, this module none."""
    if name == "make_vec":
        from dualfid_robot.adapters.make import make_vec

        return make_vec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
