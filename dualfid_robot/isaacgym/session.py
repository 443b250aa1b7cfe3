"""What the user chose for this process, and messages that are said once."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dualfid_robot.errors import ConfigError


@dataclass
class Session:
    """Choices of the launcher or of a task's pool, read when a simulation is built.

    Attributes:
        engine: name of a file in `cfg/simulator`.
        settings: of the engine; None stands for those of that file.
        threads: worker threads of the engine, where the file's settings are used; 0 takes all CPUs.
        armature_floor: least armature of a joint that is driven by explicit efforts, kg m² (hinge) or kg (slide).
        feet: parts of names, in either case; bodies with one keep their contacts in an engine with reduced contacts.
    """

    engine: str = "mujoco"
    settings: Mapping[str, Any] | None = None
    threads: int = 0
    armature_floor: float = 0.01
    feet: tuple[str, ...] = ("foot", "ankle")


CURRENT = Session()
_said: set[str] = set()


@contextmanager
def using(session: Session) -> Iterator[None]:
    """Within the block, these are the choices of the process."""
    before = dataclasses.replace(CURRENT)
    vars(CURRENT).update(vars(session))
    try:
        yield
    finally:
        vars(CURRENT).update(vars(before))


def check_feet(key: str, feet: tuple[str, ...]) -> None:
    """Raise ConfigError for parts of names that every name has."""
    if not all(isinstance(part, str) and part.strip() for part in feet):
        raise ConfigError(f"{key}={','.join(map(str, feet))}: allowed are parts of bodies' names, none of them empty")


class NotProvided(ConfigError, AttributeError):
    """A name of Isaac Gym that has no counterpart here; also an AttributeError, so that `hasattr` answers no."""


def not_provided(name: str, why: str = "it has no counterpart yet") -> NotProvided:
    """The error for a name of Isaac Gym that is not provided."""
    return NotProvided(f"isaacgym: {name} is not provided on engine {CURRENT.engine}: {why} (docs/isaacgym.md)")


def say_once(message: str) -> None:
    """Print a line about a difference from Isaac Gym, the first time that it matters."""
    if message not in _said:
        _said.add(message)
        print(f"[dualfid_robot.isaacgym] {message}", file=sys.stderr, flush=True)
