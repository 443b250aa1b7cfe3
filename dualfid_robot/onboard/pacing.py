"""Waiting for a deadline of a fixed-rate loop."""

from __future__ import annotations

import time

SPIN = 2e-4
"""s before a deadline in which the clock is watched instead of sleeping: about what a sleep oversleeps on Linux."""


def sleep_until(deadline: float) -> None:
    """Return at `deadline`, a time of `time.monotonic`, or at once if it has passed."""
    remaining = deadline - time.monotonic()
    if remaining > SPIN:
        time.sleep(remaining - SPIN)
    while time.monotonic() < deadline:
        pass
