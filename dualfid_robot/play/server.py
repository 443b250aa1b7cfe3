"""A simulated robot behind the link of `robot_link`: what a robot loop is tested against before it meets a robot."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.limits import stop_control
from dualfid_robot.onboard.link import (
    MAX_PACKET,
    RESEND_PERIOD,
    Flag,
    Kind,
    Layout,
    Output,
    Packet,
    pack,
    pack_state,
    unpack,
    unpack_output,
)
from dualfid_robot.onboard.pacing import sleep_until
from dualfid_robot.onboard.runtime import MEASURE_OUTPUT, Controller, ExportedPolicy, RobotState
from dualfid_robot.play.simulated_robot import SimulatedRobot

STOP_PERIODS = 50
"""Control periods for which a stopped robot is simulated further, to see it come to rest."""

MAX_BEHIND = 5
"""Control periods by which a simulation in real time may be behind and catch up; what is more is lost."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, on purpose; steps count from 0.

    Attributes:
        drop: probability that a packet with a state is lost.
        drop_from, drop_steps: the first and the number of states that are lost for sure.
        latency: control periods by which states are old.
        nan_at: step whose state has a NaN among its joint velocities.
        out_of_range_at: step whose state has the actuated joints 100 rad or m beyond where they are.
        die_at: step at which the robot falls silent.
        seed: of the lost packets.
    """

    drop: float = 0.0
    drop_from: int = 0
    drop_steps: int = 0
    latency: int = 0
    nan_at: int | None = None
    out_of_range_at: int | None = None
    die_at: int | None = None
    seed: int = 0


@dataclass
class Episode:
    """What the simulated robot saw.

    Attributes:
        total_reward: undiscounted, up to the end or the stop.
        steps: control periods judged.
        terminated: it ended for good.
        measures: the task's figures of merit, means over the steps.
        control_difference: largest difference between the loop's controls and what onnxruntime makes of the same states
            here. It covers the steps for which a control came in time. It says nothing with limits at work, or in a
            loop that missed a state.
        lost_controls: periods without a new control, in which the last one was held.
        stopped: why the loop, or this robot's own watchdog, stopped it. It is empty where the episode came to its end.
        rest_speed: largest joint speed after `STOP_PERIODS` of standstill, rad/s or m/s; None if it was not stopped.
        controls: (steps, act_dim) as they acted.
    """

    total_reward: float = 0.0
    steps: int = 0
    terminated: bool = False
    measures: dict[str, float] = field(default_factory=dict)
    control_difference: float = 0.0
    lost_controls: int = 0
    stopped: str = ""
    rest_speed: float | None = None
    controls: list[np.ndarray] = field(default_factory=list)


class RobotServer:
    """A simulated robot that waits for a loop.

    Attributes:
        port: at which it listens.
    """

    def __init__(
        self,
        robot: SimulatedRobot,
        policy: ExportedPolicy,
        port: int,
        *,
        dial: float = 1.0,
        watchdog: float = 0.5,
        faults: Faults | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        """Open the port.

        Args:
            robot: one world of it.
            policy: the export that the loop runs. It judges the episode.
            port: 0 for any that is free.
            dial: as the loop's, to compare controls.
            watchdog: s without a control after which the robot stops itself, in real time.
            faults: none by default.

        Raises:
            ConfigError: the port is taken.
        """
        self._robot, self._policy, self._watchdog = robot, policy, watchdog
        self._faults = faults or Faults()
        self._random = np.random.default_rng(self._faults.seed)
        self._shadow = Controller(policy, 1, dial)
        self._layout = Layout.of(policy.metadata)
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._link.bind((host, port))
        except OSError as error:
            self._link.close()
            raise ConfigError(f"udp_port={port}: cannot listen at {host} ({error.strerror})") from error
        self.port: int = self._link.getsockname()[1]

    def run(
        self,
        qpos: np.ndarray,
        qvel: np.ndarray,
        memory: dict[str, np.ndarray],
        *,
        after_step: Callable[[RobotState], None] | None = None,
        wait: float = 60.0,
    ) -> Episode:
        """Wait for a loop and be its robot for one episode.

        The loop says whether time is real. If so, a step is made at each control period, whether or not a control came.
        A control that comes within a period acts from its beginning. Else each step waits for its control.

        Args:
            qpos, qvel, memory: the start, (1, ·) each.
            after_step: is shown each state.
            wait: s for a loop to come; in lockstep also s for each control.

        Raises:
            ConfigError: no loop came, or one that is made for another robot.
        """
        lockstep = self._meet(wait)
        run = _Run(self, qpos, qvel, memory, after_step)
        period = self._layout.control_dt
        began = last_control = time.monotonic()
        deadline = began
        while True:
            step = run.episode.steps
            if step == self._faults.die_at:
                run.episode.stopped = "died, as it was asked to"
                return run.episode
            if lockstep:
                output = self._ask(run.sent(step), step, wait)
                if output is None:
                    run.episode.stopped = f"no control for {wait:g} s"
                    return run.episode
            else:
                self._send_state(run.sent(step), step)
                deadline = max(deadline + period, time.monotonic() - MAX_BEHIND * period)
                output = self._collect(deadline)
                if output is not None:
                    last_control = time.monotonic()
                elif time.monotonic() - last_control > self._watchdog:
                    run.stop(f"robot: no control for {self._watchdog:g} s")
                    self._send(Kind.STATE, step, Flag.STOPPED, pack_state(run.state))
                    return run.episode
            if isinstance(output, str):
                run.stop(output)
                return run.episode
            if run.step(output):
                self._send(Kind.STATE, run.episode.steps, Flag.END, pack_state(run.state))
                return run.episode

    def close(self) -> None:
        """Close the port; the robot stays."""
        self._link.close()

    def _meet(self, wait: float) -> bool:
        """Greet a loop; whether it asks for lockstep."""
        self._link.setblocking(False)
        while self._receive_any(0.0) is not None:
            pass  # greetings of loops that have gone
        deadline = time.monotonic() + wait
        while (left := deadline - time.monotonic()) > 0:
            received = self._receive_any(left)
            if received is not None and received[0].kind == Kind.HELLO:
                packet, self._peer = received
                self._send(Kind.WELCOME, 0, 0, self._layout.pack())
                self._layout.check(Layout.unpack(packet.payload), f"loop={self._peer[0]}:{self._peer[1]}")
                return bool(packet.flags & Flag.LOCKSTEP)
        raise ConfigError(f"udp_port={self.port}: no robot loop called within {wait:g} s")

    def _ask(self, state: RobotState, step: int, wait: float) -> Output | str | None:
        """Send a state until its control comes; a text is the reason of a stop, None silence."""
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            self._send_state(state, step)
            resend = time.monotonic() + RESEND_PERIOD
            while (left := resend - time.monotonic()) > 0:
                packet = self._receive(left)
                if packet is None:
                    break
                if packet.kind == Kind.STOP:
                    return _reason(packet)
                if packet.kind == Kind.CONTROL and packet.sequence == step:
                    return unpack_output(packet.payload, self._layout)
        return None

    def _collect(self, deadline: float) -> Output | str | None:
        """The last control that comes before the deadline; a text is the reason of a stop, None silence."""
        sleep_until(deadline)
        output = None
        while (packet := self._receive(0.0)) is not None:
            if packet.kind == Kind.STOP:
                return _reason(packet)
            if packet.kind == Kind.CONTROL:
                output = unpack_output(packet.payload, self._layout)
        return output

    def _send_state(self, state: RobotState, step: int) -> None:
        if self._random.random() >= self._faults.drop:
            self._send(Kind.STATE, step, Flag.BEGIN if step == 0 else 0, pack_state(state))

    def _send(self, kind: Kind, sequence: int, flags: int, payload: bytes) -> None:
        if kind == Kind.STATE and 0 <= sequence - self._faults.drop_from < self._faults.drop_steps:
            return
        self._link.sendto(pack(kind, sequence, flags, time.monotonic(), payload), self._peer)

    def _receive(self, timeout: float) -> Packet | None:
        """The next packet of the loop that was greeted; its further greetings are answered again."""
        deadline = time.monotonic() + timeout
        while True:
            received = self._receive_any(max(0.0, deadline - time.monotonic()))
            if received is None:
                return None
            packet, peer = received
            if peer != self._peer:
                continue
            if packet.kind != Kind.HELLO:
                return packet
            self._send(Kind.WELCOME, 0, 0, self._layout.pack())

    def _receive_any(self, timeout: float) -> tuple[Packet, tuple[str, int]] | None:
        """The next packet of this protocol within `timeout` s, and its sender."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            self._link.settimeout(max(left, 0.0))  # 0: does not block
            try:
                data, peer = self._link.recvfrom(MAX_PACKET)
            except (BlockingIOError, TimeoutError):
                return None
            packet = unpack(data)
            if packet is not None:
                return packet, peer


class _Run:
    """One episode of a server's robot: the simulation, what is shown of it, and its judgement."""

    def __init__(
        self,
        server: RobotServer,
        qpos: np.ndarray,
        qvel: np.ndarray,
        memory: dict[str, np.ndarray],
        after_step: Callable[[RobotState], None] | None,
    ) -> None:
        self._robot, self._metadata = server._robot, server._policy.metadata
        self._shadow, self._faults, self._after_step = server._shadow, server._faults, after_step
        self._robot.reset(qpos, qvel)
        self.state = self._robot.measure()
        self._shadow.begin(self.state, memory)
        self._control = self._shadow.control.copy()
        self._commands = [(self._shadow.memory[command.memory], command.column) for command in self._metadata.commands]
        self._measures: dict[str, float] = {}
        self._states = deque([self.state], maxlen=self._faults.latency + 1)
        self.episode = Episode()

    def sent(self, step: int) -> RobotState:
        """The state that the loop gets to see."""
        state = _copy(self._states[0])
        if step == self._faults.nan_at:
            state.qvel[:] = np.nan
        if step == self._faults.out_of_range_at:
            columns = {joint.name: joint.qpos for joint in self._metadata.joints}
            state.qpos[:, [columns[actuator.joint] for actuator in self._metadata.actuators]] += 100.0
        return state

    def step(self, output: Output | None) -> bool:
        """Make one step with a loop's control, or hold the last one; whether the episode has ended."""
        episode, shadow = self.episode, self._shadow
        if output is not None:
            for (memory, column), value in zip(self._commands, output.commands, strict=True):
                memory[:, column] = value
        own = shadow.act(self._states[0])
        if output is None:
            episode.lost_controls += 1
        else:
            episode.control_difference = max(episode.control_difference, float(abs(own - output.control).max()))
            self._control = output.control[None]
            shadow.action[:] = output.action
        shadow.control[:] = self._control
        previous = self.state.qpos
        self._advance(self._control)
        judged = shadow.judge(previous, self.state)
        failed = bool(self._robot.failed[0])
        episode.controls.append(self._control[0].copy())
        episode.steps += 1
        episode.total_reward += 0.0 if failed else float(judged["reward"][0])
        episode.terminated = failed or bool(judged["terminated"][0])
        for name, value in judged.items():
            if name.startswith(MEASURE_OUTPUT):
                name = name.removeprefix(MEASURE_OUTPUT)
                self._measures[name] = self._measures.get(name, 0.0) + float(value[0])
        episode.measures = {name: total / episode.steps for name, total in self._measures.items()}
        return episode.terminated or episode.steps >= self._metadata.episode_length

    def stop(self, reason: str) -> None:
        """Stop, and come to rest."""
        control = stop_control(self._metadata, self.state.qpos)
        for _ in range(STOP_PERIODS):
            self._advance(control)
        columns = [joint.qvel for joint in self._metadata.joints if joint.type in ("hinge", "slide")]
        self.episode.rest_speed = float(abs(self.state.qvel[:, columns]).max(initial=0.0))
        self.episode.stopped = reason

    def _advance(self, control: np.ndarray) -> None:
        self._robot.step(control)
        self.state = self._robot.measure()
        self._states.append(self.state)
        if self._after_step is not None:
            self._after_step(self.state)


def serve(
    robot: SimulatedRobot,
    policy: ExportedPolicy,
    port: int,
    *,
    qpos: np.ndarray,
    qvel: np.ndarray,
    memory: dict[str, np.ndarray],
    dial: float = 1.0,
    after_step: Callable[[RobotState], None] | None = None,
    wait: float = 60.0,
    faults: Faults | None = None,
) -> Episode:
    """One episode at a port. See `RobotServer`."""
    server = RobotServer(robot, policy, port, dial=dial, faults=faults)
    try:
        return server.run(qpos, qvel, memory, after_step=after_step, wait=wait)
    finally:
        server.close()


def _reason(packet: Packet) -> str:
    return packet.payload.decode(errors="replace")


def _copy(state: RobotState) -> RobotState:
    return RobotState(state.qpos.copy(), state.qvel.copy(), state.contact_wrench.copy())
