#!/usr/bin/env python3
"""The program that runs on the robot, in Python: at each control period read the state, run the policy, limit the
control, write it; stop the robot safely when something is wrong.

deploy/cpp/robot_loop.hpp is the same in C++. Put your own `Hardware` in place of `UdpHardware`: docs/deploy.md. Needs
Python, NumPy, onnxruntime and the package dualfid_robot (`pip install --no-deps`), no PyTorch and no simulator.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.limits import POSITION_MARGIN, VELOCITY_FACTOR, Limits
from dualfid_robot.onboard.link import Layout, Output, Read, UdpHardware
from dualfid_robot.onboard.pacing import sleep_until
from dualfid_robot.onboard.runtime import Controller, ExportedPolicy, RobotState

SAMPLE_TOLERANCE = 1e-4  # on the stored sample's action
SHARE_OF_PERIOD_TO_WAIT = 0.5  # for a state that is late; then the last control is held
FINISHED, REFUSED, STOPPED = 0, 2, 3  # exit status


class Hardware(Protocol):
    """What a loop needs of a robot: the functions to fill in.

    Attributes:
        state: the last that was read.
    """

    state: RobotState

    def read(self, timeout: float) -> Read:
        """Put the newest state that has not been read yet into `state`; wait for one up to `timeout` s."""

    def write(self, output: Output) -> None:
        """Hand the controls to the actuators' drives, which keep them until the next call."""

    def stop(self, reason: str) -> None:
        """Stop the robot: motors without force, position servos at the last measured position. Called once, at the end
        of every run, whatever the reason."""

    def commands(self, values: np.ndarray) -> None:
        """Overwrite what an operator's input device says now, (commands,); they come in as they are."""


@dataclass
class Options:
    """How a loop runs.

    Attributes:
        steps: control periods to run.
        lockstep: no pace: one control for each state.
        max_missed: consecutive missed deadlines until the safe stop.
        timeout: s without a state until the safe stop.
        wait: s for the first state.
        rate_limit: greatest change of a control per period.
        commands: (commands,) what the operator wants.
    """

    steps: float
    lockstep: bool
    max_missed: int
    timeout: float
    wait: float
    rate_limit: float
    commands: np.ndarray


class _Stop(Exception):
    """The run ends with an exit status, for a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Samples:
    """Times of a running loop: the newest values for percentiles, and the greatest of all; s."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=65536)
        self._max = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._values.append(seconds)
        self._max = max(self._max, seconds)

    def summary(self) -> dict[str, float] | None:
        """In microseconds; None where there is none."""
        if not self._values:
            return None
        ordered = sorted(self._values)
        p50, p99 = (ordered[math.ceil(p * len(ordered)) - 1] for p in (0.50, 0.99))
        return {name: round(1e6 * value, 1) for name, value in (("p50", p50), ("p99", p99), ("max", self._max))}


class RobotLoop:
    """The control loop.

    Attributes:
        interrupted: a signal handler sets it.
    """

    interrupted = False

    def __init__(self, controller: Controller, hardware: Hardware, limits: Limits, options: Options) -> None:
        self._hardware, self._limits, self._options = hardware, limits, options
        self._metadata = metadata = controller.policy.metadata
        self._period = metadata.timing.control_dt
        self._controller = controller
        joints = {joint.name: joint for joint in metadata.joints}
        self._joints = [
            (i, actuator.joint, joints[actuator.joint])
            for i, actuator in enumerate(metadata.actuators)
            if actuator.joint
        ]
        self._control = np.zeros(metadata.policy.act_dim, np.float32)
        self._inference = Samples()
        self._period_jitter, self._control_jitter = Samples(), Samples()  # of the wake-ups, of the controls' departure
        self._steps = self._missed = self._missing = self._limited = self._consecutive = 0

    def run(self) -> int:
        """Run until something ends it, stop the robot in any case, print why and one line of JSON; the exit status."""
        try:
            self._loop()
        except _Stop as stop:
            self._hardware.stop(str(stop))
            kind = "safe stop" if stop.status == STOPPED else "stopped"
            print(f"robot_loop: {kind}: {stop}", file=sys.stderr)
            print(json.dumps(self._summary(stop)))
            return stop.status
        raise AssertionError("a loop ends with a reason")

    def _summary(self, stop: _Stop) -> dict[str, Any]:
        return {
            "loop": "python",
            "task": self._metadata.task,
            "exit": stop.status,
            "reason": str(stop),
            "steps": self._steps,
            "missed_deadlines": self._missed,
            "missing_states": self._missing,
            "limited_controls": self._limited,
            "inference_us": self._inference.summary(),
            "period_jitter_us": self._period_jitter.summary(),
            "control_jitter_us": self._control_jitter.summary(),
        }

    def _loop(self) -> None:
        options, hardware = self._options, self._hardware
        read = hardware.read(options.wait)
        if read is Read.TIMEOUT:
            raise _Stop(REFUSED, "the robot sends no state")
        deadline = last_state = last_wake = last_write = time.monotonic()
        if read is Read.OK:
            self._controller.begin(hardware.state)
        while True:
            if self.interrupted:
                raise _Stop(FINISHED, "interrupted")
            if read is Read.CLOSED:
                raise _Stop(FINISHED, "the robot has ended the run")
            if read is Read.STOPPED:
                raise _Stop(STOPPED, "the robot has stopped by itself")
            if read is Read.OK:
                last_state = time.monotonic()
                self._decide(hardware.state)
            else:
                self._missing += 1  # hold the last control
                if time.monotonic() - last_state >= options.timeout:
                    raise _Stop(STOPPED, f"no state for {options.timeout:g} s")
            hardware.write(Output(self._control, self._controller.action[0], options.commands))
            written = time.monotonic()
            if not options.lockstep:
                if self._steps > 0:
                    self._control_jitter.add(abs(written - last_write - self._period))
                last_write = written
                deadline = self._keep_pace(written, deadline)
            self._steps += 1
            if self._steps == options.steps:
                raise _Stop(FINISHED, "all steps made")
            if not options.lockstep:
                deadline += self._period
                sleep_until(deadline)
                woken = time.monotonic()
                self._period_jitter.add(abs(woken - last_wake - self._period))
                last_wake = woken
            read = hardware.read(options.timeout if options.lockstep else SHARE_OF_PERIOD_TO_WAIT * self._period)

    def _decide(self, state: RobotState) -> None:
        """From a state to a control within the limits."""
        self._check_state(state)
        controller, commands = self._controller, self._options.commands
        self._hardware.commands(commands)
        for command, value in zip(self._metadata.commands, commands, strict=True):
            controller.memory[command.memory][:, command.column] = value
        began = time.monotonic()
        control = controller.act(state)
        self._inference.add(time.monotonic() - began)
        for name in ("observation", "action", "control"):
            if not np.isfinite(getattr(controller, name)).all():
                raise _Stop(STOPPED, f"the {name} is not finite")
        self._limit(control[0])

    def _check_state(self, state: RobotState) -> None:
        for part in (state.qpos, state.qvel, state.contact_wrench):
            if not np.isfinite(part).all():
                raise _Stop(STOPPED, "the state is not finite")
        limits = self._limits
        for i, name, joint in self._joints:
            position, velocity = float(state.qpos[0, joint.qpos]), float(state.qvel[0, joint.qvel])
            low, high, fastest = limits.position_low[i], limits.position_high[i], limits.velocity[i]
            if not low <= position <= high:
                raise _Stop(STOPPED, f"joint {name} is at {position:g}, outside [{low:g}, {high:g}]")
            if not abs(velocity) <= fastest:
                raise _Stop(STOPPED, f"joint {name} moves at {velocity:g}, beyond {fastest:g}")

    def _limit(self, control: np.ndarray) -> None:
        low, high = self._limits.control_low, self._limits.control_high
        if self._steps > 0:
            rate = np.float32(self._options.rate_limit)
            low, high = np.maximum(low, self._control - rate), np.minimum(high, self._control + rate)
        self._control = control.clip(low, high)
        self._limited += int((self._control != control).any())

    def _keep_pace(self, written: float, deadline: float) -> float:
        """Count the deadlines that have passed unused; the last of them, or the same where none has."""
        passed = int((written - deadline) / self._period)
        self._missed += passed
        self._consecutive = self._consecutive + passed if passed else 0
        if self._consecutive >= self._options.max_missed:
            raise _Stop(STOPPED, f"{self._options.max_missed} consecutive deadlines missed")
        return deadline + passed * self._period


class SlowHardware(UdpHardware):
    """A link whose writes take `slow` s longer, as on an overloaded computer, for tests."""

    slow = 0.0

    def write(self, output: Output) -> None:
        """Write late."""
        time.sleep(self.slow)
        super().write(output)


def check_sample(policy: ExportedPolicy) -> None:
    """Raise ConfigError unless this machine makes of the stored observation what the exporter made of it."""
    sample = policy.metadata.sample
    action = policy.action(np.array([sample.observation], np.float32))
    error = float(abs(action[0] - np.array(sample.action, np.float32)).max())
    if not error <= SAMPLE_TOLERANCE:
        raise ConfigError(f"the stored sample's action is off by {error:g} on this machine")


def parse_commands(policy: ExportedPolicy, texts: list[str]) -> np.ndarray:
    """What the operator wants: 0, or what is nearest in the trained range, but for what `texts` (NAME=VALUE) say."""
    commands = policy.metadata.commands
    values = np.array([min(max(0.0, c.low), c.high) for c in commands], np.float32)
    for text in texts:
        name, _, value = text.partition("=")
        known = {command.name: i for i, command in enumerate(commands)}
        if name not in known:
            raise ConfigError(f"--command {text}: no such command; allowed are [{', '.join(known)}]")
        command = commands[known[name]]
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"--command {text}: a number is expected") from None
        if not command.low <= number <= command.high:
            raise ConfigError(f"--command {text}: trained in [{command.low:g}, {command.high:g}]")
        values[known[name]] = number
    return values


def positive(text: str) -> float:
    """A number of at least 0."""
    value = float(text)
    if not value >= 0.0:
        raise ValueError
    return value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs an exported policy on a robot.")
    add = parser.add_argument
    add("policy", type=Path, help="folder that export.py wrote, or the policy.onnx in it")
    add("--host", default="127.0.0.1", help="address of the robot (%(default)s)")
    add("--port", type=int, help="its UDP port")
    add("--steps", type=int, default=math.inf, help="control periods to run (no end)")
    add("--duration", type=positive, help="the same in seconds")
    add("--lockstep", action="store_true", help="one control per state, as fast as they come: for reproducible returns")
    add("--command", action="append", default=[], metavar="NAME=V", help="what the operator wants (0, or the nearest)")
    add("--dial", type=positive, default=1.0, help="how much of the adapter acts, for policies with a dial (1)")
    add("--max-missed", type=int, default=5, help="consecutive missed deadlines until the safe stop (%(default)s)")
    add("--timeout", type=positive, default=0.0, help="s without a state (5 control periods; 10 s in lockstep)")
    add("--wait", type=positive, default=10.0, help="s for the robot to answer (%(default)s)")
    add("--rate-limit", type=positive, default=math.inf, help="greatest change of a control per period (none)")
    add("--position-margin", type=positive, default=POSITION_MARGIN, help="beyond a joint's range, as a share of it")
    add("--velocity-factor", type=positive, default=VELOCITY_FACTOR, help="greatest speed over what was visited")
    add("--limits", action="store_true", help="print the limits and end")
    add("--slow", type=positive, default=0.0, help="make each write take so long, to see the watchdog act")
    return parser.parse_args(arguments)


def print_limits(policy: ExportedPolicy, limits: Limits) -> None:
    """As one line of JSON; null where there is no bound."""
    bounds = {
        field.name: [float(value) if np.isfinite(value) else None for value in getattr(limits, field.name)]
        for field in dataclasses.fields(limits)
    }
    print(json.dumps({"actuators": [actuator.name for actuator in policy.metadata.actuators], **bounds}))


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit status."""
    args = parse(arguments)
    policy = ExportedPolicy(args.policy)
    metadata = policy.metadata
    limits = Limits.of(metadata, args.position_margin, args.velocity_factor)
    if args.limits:
        print_limits(policy, limits)
        return FINISHED
    if args.port is None:
        raise ConfigError("--port: is required")
    check_sample(policy)
    period = metadata.timing.control_dt
    steps = args.steps if args.duration is None else max(1, round(args.duration / period))
    timeout = args.timeout or (10.0 if args.lockstep else 5 * period)
    commands = parse_commands(policy, args.command)
    controller = Controller(policy, 1, args.dial)
    options = Options(steps, args.lockstep, args.max_missed, timeout, args.wait, args.rate_limit, commands)

    def interrupt(signum: int, frame: object) -> None:
        RobotLoop.interrupted = True

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    hardware = SlowHardware(Layout.of(metadata), args.host, args.port, args.lockstep, args.wait)
    hardware.slow = args.slow
    return RobotLoop(controller, hardware, limits, options).run()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(REFUSED)
