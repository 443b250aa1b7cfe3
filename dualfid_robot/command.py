"""A command that an operator may give. Tasks declare them and exports name them, so this module imports nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One number that an operator may give while the policy runs, in place of what training draws.

    Attributes:
        name, unit: such as "forward velocity" in "m/s".
        memory, column: where the task's memory holds it.
        low, high: range that training draws from.
    """

    name: str
    unit: str
    memory: str
    column: int
    low: float
    high: float
