"""The arithmetic of what acts on joints, without an engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualfid_robot.simulators.workers.joint_drives import JointDrives

H = 0.01


def servo(**changes: object) -> JointDrives:
    """A position servo with kp = 40 and kv = 3, on the first of two joints of inertia 0.2 and 0.5."""
    two = np.zeros(2)
    drives = JointDrives(
        timestep=H,
        steps=2,
        joint=np.array([0]),
        gear=np.array([2.0]),
        gain=np.array([40.0]),
        bias=np.array([[0.0, -40.0, -3.0]]),
        ctrl_range=np.array([[-1.0, 1.0]]),
        force_range=np.array([[-50.0, 50.0]]),
        stall=np.array([np.inf]),
        drop=np.zeros(1),
        delay=np.zeros(1, np.int64),
        position_servo=np.array([True]),
        velocity_servo=np.array([False]),
        joint_force_range=np.array([[-np.inf, np.inf]] * 2),
        stiffness=two,
        rest=two,
        damping=two,
        friction=two,
        inertia=np.array([0.2, 0.5]),
    )
    return replace(drives, **changes)  # type: ignore[arg-type]


ONE = np.ones((1, 1))


def forces(drives: JointDrives, ctrl: float, position: float, velocity: float) -> tuple[np.ndarray, np.ndarray]:
    state = np.array([[position, 0.3]]), np.array([[velocity, -0.7]])
    return drives.forces(np.array([[ctrl]]), *state, drives.gains(ONE, ONE, ONE), ONE, ONE)


def test_forces_of_a_servo_a_spring_and_a_damper() -> None:
    torque, falls = forces(servo(), 0.5, 0.1, 0.2)
    np.testing.assert_allclose(torque, [[2 * (40 * (0.5 - 2 * 0.1) - 3 * 2 * 0.2), 0.0]])
    np.testing.assert_allclose(falls, [[3 * 2**2, 0.0]])
    passive = servo(stiffness=np.array([0.0, 6.0]), rest=np.array([0.0, 0.1]), damping=np.array([0.0, 0.4]))
    torque, falls = forces(passive, 0.5, 0.1, 0.2)
    np.testing.assert_allclose(torque[0, 1], 6.0 * (0.1 - 0.3) + 0.4 * 0.7)
    np.testing.assert_allclose(falls[0, 1], 0.4)


def test_a_bounded_force_does_not_fall_with_velocity() -> None:
    torque, falls = forces(servo(force_range=np.array([[-5.0, 5.0]])), 1.0, 0.1, 0.2)
    assert torque[0, 0] == 10.0
    assert falls[0, 0] == 0.0
    torque, falls = forces(servo(joint_force_range=np.array([[-4.0, 4.0]] * 2)), 1.0, 0.1, 0.2)
    assert (torque[0, 0], falls[0, 0]) == (4.0, 0.0)


def test_voltage_bounds_force_by_speed() -> None:
    motor = servo(stall=np.array([10.0]), drop=np.array([2.0]))
    torque, falls = forces(motor, 1.0, 0.0, 0.5)
    assert torque[0, 0] == pytest.approx(2 * (10.0 - 2.0 * 1.0))
    assert falls[0, 0] == pytest.approx(2.0 * 2**2)


def test_factors_on_gains() -> None:
    gains = servo().gains(np.array([[2.0]]), np.array([[0.5]]), np.array([[3.0]]))
    assert gains.gain.tolist() == [[40.0]]
    assert [float(part[0, 0]) for part in gains.bias] == [0.0, -40.0, -18.0]
    velocity = servo(position_servo=np.array([False]), velocity_servo=np.array([True]), gain=np.array([3.0]))
    gains = velocity.gains(np.array([[1.0]]), np.array([[0.5]]), np.array([[3.0]]))
    assert (float(gains.gain[0, 0]), float(gains.bias[2][0, 0])) == (9.0, -9.0)


def move(
    part: np.ndarray, damping: np.ndarray, load: np.ndarray, pull: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Velocities (n,) of joints of inertia 0.2, of which the drives know a part, under a constant pull and load, and
    the largest on the way."""
    drives, zero = servo(inertia=0.2 * np.stack([part, part], 1)), np.zeros((len(part), 2))
    velocity, known, fastest = zero, zero, np.zeros(len(part))
    for _ in range(steps):
        torque = pull[:, None] - damping[:, None] * velocity
        applied = drives.implicit(torque, np.repeat(damping[:, None], 2, 1), velocity, known)
        after = velocity + H / 0.2 * (applied + load[:, None])
        known, velocity = drives.load(applied, velocity, after), after
        fastest = np.maximum(fastest, np.abs(velocity[:, 0]))
    return velocity[:, 0], fastest


def test_a_free_joint_moves_as_with_implicit_damping() -> None:
    n, rng = 64, np.random.default_rng(0)
    damping, pull = rng.uniform(0.1, 500.0, n), rng.uniform(-20.0, 20.0, n)
    for steps in (1, 2, 5, 20):
        found, _ = move(np.ones(n), damping, np.zeros(n), pull, steps)
        expected = np.zeros(n)
        for _ in range(steps):
            expected = (0.2 * expected + H * pull) / (0.2 + H * damping)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_loaded_joints_of_underestimated_inertia_come_to_the_right_speed() -> None:
    """Up to dampings of ten times the known inertia per step; beyond, they may swing about it."""
    n, rng = 256, np.random.default_rng(0)
    part = rng.uniform(0.2, 1.0, n)
    damping = rng.uniform(0.05, 10.0, n) * 0.2 * part / H
    load, pull = rng.uniform(-20.0, 20.0, (2, n))
    found, fastest = move(part, damping, load, pull, 4000)
    np.testing.assert_allclose(found, (pull + load) / damping, atol=1e-6)
    assert (fastest < (np.abs(load) + np.abs(pull)) * (2.0 / damping + 2.0 * H / 0.2)).all()


def test_a_joint_at_rest_under_a_load_gets_the_whole_force() -> None:
    drives, rest = servo(), np.zeros((1, 2))
    torque, falls = np.array([[7.0, 0.0]]), np.array([[50.0, 0.0]])
    load = drives.load(torque, rest, rest)
    np.testing.assert_allclose(drives.implicit(torque, falls, rest, load), torque)


def test_controls_are_late_by_physics_steps() -> None:
    """Two steps a period; delays of none, one, two and three steps."""
    drives = servo(joint=np.zeros(4, np.int64), delay=np.array([0, 1, 2, 3]))
    assert drives.past == 2
    ctrl, past = np.full((1, 4), 30.0), np.array([[[20.0] * 4, [10.0] * 4]])
    assert drives.delayed(ctrl, past, 0).tolist() == [[30.0, 20.0, 20.0, 10.0]]
    assert drives.delayed(ctrl, past, 1).tolist() == [[30.0, 30.0, 20.0, 20.0]]


def test_drives_of_motors_alone_do_not_change_within_a_period() -> None:
    motor = servo(bias=np.array([[1.0, 0.0, 0.0]]), damping=np.array([0.1, 0.1]))
    assert not motor.in_motion
    for change in (
        {"bias": np.array([[0.0, -1.0, 0.0]])},
        {"delay": np.array([1])},
        {"stiffness": np.array([0.0, 1.0])},
        {"friction": np.array([0.0, 1.0])},
        {"damping": np.array([6.0, 0.0])},
    ):
        assert replace(motor, **change).in_motion
