"""What an export shall hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        formats: of `export.FORMATS`; ONNX is always among them.
        policy: of `export.POLICIES`.
        num_envs: episodes of each evaluation.
        seed: of their starts.
        simulator: file of cfg/simulator to evaluate in instead of the checkpoint's E_high; empty: that itself.
        simulators: further ones.
        sim_device: where to simulate; empty: a GPU where there is one that E_high can use.
        graphs: an export of the same run, whose task graphs are taken over. They do not depend on the policy.
    """

    formats: tuple[str, ...]
    policy: str = "adapted"
    num_envs: int = 64
    seed: int = 0
    simulator: str = ""
    simulators: tuple[str, ...] = ()
    sim_device: str = ""
    graphs: Path | None = None
