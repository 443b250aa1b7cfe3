"""The limits within which a robot loop keeps a robot, from the metadata of its policy: docs/deploy.md.

deploy/cpp/limits.hpp says the same in C++. This module needs only NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualfid_robot.onboard.metadata import Actuator, Metadata

POSITION_MARGIN = 0.1
VELOCITY_FACTOR = 2.0


@dataclass(frozen=True)
class Limits:
    """Bounds per actuator, (act_dim,) float32 each, infinite where there is none.

    Attributes:
        control_low, control_high: every control is clipped to them.
        position_low, position_high: of the joint, rad or m. The loop stops a robot that is beyond them.
        velocity: of the joint, rad/s or m/s. The loop stops a robot that is faster.
    """

    control_low: np.ndarray
    control_high: np.ndarray
    position_low: np.ndarray
    position_high: np.ndarray
    velocity: np.ndarray

    @classmethod
    def of(
        cls, metadata: Metadata, position_margin: float = POSITION_MARGIN, velocity_factor: float = VELOCITY_FACTOR
    ) -> Limits:
        """The limits of an exported policy.

        Args:
            position_margin: how far a joint may leave its own range and the range visited in the exporter's
                evaluation. It is a share of its own range.
            velocity_factor: greatest speed as a multiple of the greatest that the evaluation visited, for joints
                without a velocity limit.
        """
        joints = {joint.name: joint for joint in metadata.joints}
        visited = metadata.visited
        rows = []
        for i, actuator in enumerate(metadata.actuators):
            joint = joints.get(actuator.joint)
            low = -math.inf if joint is None or joint.low is None else joint.low
            high = math.inf if joint is None or joint.high is None else joint.high
            margin = position_margin * (high - low) if math.isfinite(high - low) else 0.0
            visited_low, visited_high, speed = (
                bounds[i] for bounds in (visited.position_low, visited.position_high, visited.velocity)
            )
            position_low = min(low, math.inf if visited_low is None else visited_low) - margin
            position_high = max(high, -math.inf if visited_high is None else visited_high) + margin
            velocity = actuator.velocity_limit
            if velocity is None:
                velocity = math.inf if speed is None else velocity_factor * speed
            rows.append((*_control_range(metadata, i, actuator, low, high), position_low, position_high, velocity))
        return cls(*np.array(rows, np.float32).T.copy())


def _control_range(
    metadata: Metadata, i: int, actuator: Actuator, joint_low: float, joint_high: float
) -> tuple[float, float]:
    """The actuator's own range. A motor's control also stays within its effort limit. A position servo's also stays
    within the joint's range, widened to what the action mapping can reach."""
    low = -math.inf if actuator.control_low is None else actuator.control_low
    high = math.inf if actuator.control_high is None else actuator.control_high
    if actuator.kind == "motor" and actuator.effort_limit is not None and actuator.gear != 0.0:
        bound = actuator.effort_limit / abs(actuator.gear)
        return max(low, -bound), min(high, bound)
    if actuator.kind == "position":
        mapping = metadata.action
        reach = 0.0 if mapping.cumulative else abs(mapping.scale[i]) * mapping.clip
        centre = mapping.offset[i]
        low_reach = joint_low if mapping.cumulative else min(joint_low, centre - reach)
        high_reach = joint_high if mapping.cumulative else max(joint_high, centre + reach)
        return max(low, low_reach), min(high, high_reach)
    return low, high


def stop_control(metadata: Metadata, qpos: np.ndarray) -> np.ndarray:
    """The controls of a stopped robot, (n, act_dim). Position servos hold the joint where it is. All others get 0, or
    the nearest value in their range.

    Args:
        qpos: (n, nq), as last measured.
    """
    columns = {joint.name: joint.qpos for joint in metadata.joints}
    control = np.zeros((len(qpos), len(metadata.actuators)), np.float32)
    for i, actuator in enumerate(metadata.actuators):
        if actuator.kind == "position":
            control[:, i] = actuator.gear * qpos[:, columns[actuator.joint]]
        low = -np.inf if actuator.control_low is None else actuator.control_low
        high = np.inf if actuator.control_high is None else actuator.control_high
        control[:, i] = control[:, i].clip(low, high)
    return control
