"""Settings of an import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import require_number

Auto = Literal["auto"]


@dataclass(frozen=True)
class ImportOptions:
    """What a robot's file leaves open.

    Attributes:
        base: `free`, `fixed`, or `auto`. With `auto` a URDF's is free where its root has a mass and is not called
            `world`. An MJCF's stays.
        height: of a free base, m, or `auto`. With `auto` a URDF's robot stands on z = 0 when its joints are at 0, and
            an MJCF's stays.
        ground: whether there shall be a floor; `auto`: under a free base.
        visuals: whether what is only seen of a URDF is kept.
        self_collision: whether a URDF's links touch each other.
        collapse_fixed: whether a URDF's links at fixed joints become part of the link above.
        order: of a URDF's joints: as in the `file`, or the children of a link by `name`.
        actuators: kind of the actuators that joints get.
        joints: regular expression for the names of these joints.
        kp, kd: gains of `position` (kp, kd) and `velocity` (kd): N m/rad and N m s/rad, or N/m and N s/m.
        effort: N m or N, of joints whose file gives none; 0: these get no actuator.
        armature: rotor inertia of every joint of a URDF, kg m^2 or kg.
        density: kg/m^3, of moving links without a mass.
        package_path: folders in which packages of `package://` paths lie.
    """

    base: Literal["auto", "free", "fixed"] = "auto"
    height: float | Auto = "auto"
    ground: bool | Auto = "auto"
    visuals: bool = True
    self_collision: bool = True
    collapse_fixed: bool = False
    order: Literal["file", "name"] = "file"
    actuators: Literal["motor", "position", "velocity", "none"] = "motor"
    joints: str = ".*"
    kp: float = 50.0
    kd: float = 1.0
    effort: float = 0.0
    armature: float = 0.0
    density: float = 1000.0
    package_path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("kp", "kd", "effort", "armature"):
            require_number(key, getattr(self, key), 0.0, 1e9)
        require_number("density", self.density, 0.0, 1e6, open_low=True)
        if self.height != "auto":
            require_number("height", self.height, -1e3, 1e3)
        try:
            re.compile(self.joints)
        except re.error as error:
            raise ConfigError(f"joints={self.joints}: is not a regular expression ({error})") from error
