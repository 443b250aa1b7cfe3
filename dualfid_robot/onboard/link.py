"""The UDP link between a robot loop and a robot: docs/deploy.md describes the packets.

Everything is little-endian. deploy/cpp/udp_hardware.cpp speaks the same. This module needs only Python and NumPy.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import RobotState

MAGIC = int.from_bytes(b"DFRL", "little")
VERSION = 1
HEADER = struct.Struct("<IHHIId")  # magic, version, kind, sequence, flags, time
LAYOUT = struct.Struct("<5HQd")  # nq, nv, contact bodies, actions, commands, fingerprint, control period
MAX_PACKET = 65507
HELLO_PERIOD = 0.05  # s between greetings that have no answer
RESEND_PERIOD = 0.02  # s after which a robot in lockstep repeats a state that has no answer


class Kind(IntEnum):
    """What a packet is."""

    HELLO = 1
    WELCOME = 2
    STATE = 3
    CONTROL = 4
    STOP = 5


class Flag(IntFlag):
    """Flags of a state (BEGIN, END, STOPPED) and of a hello (LOCKSTEP)."""

    BEGIN = 1
    END = 2
    STOPPED = 4
    LOCKSTEP = 8


class Packet(NamedTuple):
    """One packet.

    Attributes:
        sequence: number of the state. A control repeats that of the state it answers.
        time: s since the sender began.
    """

    kind: int
    sequence: int
    flags: int
    time: float
    payload: bytes


def pack(kind: Kind, sequence: int, flags: int, time_: float, payload: bytes) -> bytes:
    """A packet's bytes."""
    return HEADER.pack(MAGIC, VERSION, kind, sequence, flags, time_) + payload


def unpack(data: bytes) -> Packet | None:
    """A packet, or None for bytes of another protocol or version."""
    if len(data) < HEADER.size:
        return None
    magic, version, kind, sequence, flags, time_ = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        return None
    return Packet(kind, sequence, flags, time_, data[HEADER.size :])


@dataclass(frozen=True)
class Layout:
    """What a loop and a robot must have in common.

    Attributes:
        nq, nv, contact_bodies, actions, commands: sizes of a state, of a control and of an operator's commands.
        fingerprint: FNV-1a (64 bit) of the names of joints, actuators and contact bodies, in order.
        control_dt: control period, s.
    """

    nq: int
    nv: int
    contact_bodies: int
    actions: int
    commands: int
    fingerprint: int
    control_dt: float

    @classmethod
    def of(cls, metadata: Metadata) -> Layout:
        """The layout of an exported policy."""
        robot = metadata.robot
        groups = (
            [joint.name for joint in metadata.joints],
            [actuator.name for actuator in metadata.actuators],
            list(robot.contact_bodies),
        )
        text = "".join("".join(name + "\n" for name in group) + "\n" for group in groups)
        return cls(
            robot.nq,
            robot.nv,
            len(robot.contact_bodies),
            metadata.policy.act_dim,
            len(metadata.commands),
            fnv1a(text.encode()),
            metadata.timing.control_dt,
        )

    def pack(self) -> bytes:
        """The layout as payload of a hello or a welcome."""
        return LAYOUT.pack(
            self.nq, self.nv, self.contact_bodies, self.actions, self.commands, self.fingerprint, self.control_dt
        )

    @classmethod
    def unpack(cls, payload: bytes) -> Layout:
        """Read `pack`."""
        return cls(*LAYOUT.unpack(payload))

    def check(self, theirs: Layout, key: str) -> None:
        """Raise ConfigError unless the other side has the same layout.

        Args:
            key: what names the other side in the error.
        """
        for name in ("nq", "nv", "contact_bodies", "actions", "commands"):
            if getattr(self, name) != getattr(theirs, name):
                raise ConfigError(
                    f"{key}: is made for {name}={getattr(theirs, name)}, this side for {name}={getattr(self, name)}"
                )
        if self.fingerprint != theirs.fingerprint:
            raise ConfigError(f"{key}: has other names of joints, actuators or contact bodies, or in another order")
        if abs(self.control_dt - theirs.control_dt) > 1e-6 * self.control_dt:
            raise ConfigError(f"{key}: acts every {theirs.control_dt:g} s, this side every {self.control_dt:g} s")


def fnv1a(data: bytes) -> int:
    """FNV-1a, 64 bit."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def pack_state(state: RobotState) -> bytes:
    """The payload of a state of one robot: qpos, qvel, contact_wrench as float32."""
    parts = (state.qpos, state.qvel, state.contact_wrench)
    return b"".join(part.astype("<f4", copy=False).tobytes() for part in parts)


def unpack_state(payload: bytes, layout: Layout) -> RobotState:
    """Read `pack_state`."""
    values = np.frombuffer(payload, "<f4").astype(np.float32)
    qpos, qvel, wrench = np.split(values[None], (layout.nq, layout.nq + layout.nv), 1)
    return RobotState(qpos, qvel, wrench.reshape(1, layout.contact_bodies, 6))


class Output(NamedTuple):
    """What a loop sends per control period. A robot needs only `control`.

    Attributes:
        control: (act_dim,) in actuator units, within the limits.
        action: (act_dim,) the policy's clipped action, for a simulator that judges the episode.
        commands: (commands,) as the operator gave them, for the same simulator.
    """

    control: np.ndarray
    action: np.ndarray
    commands: np.ndarray


def pack_output(output: Output) -> bytes:
    """The payload of a control: control, action, commands as float32."""
    return b"".join(part.astype("<f4", copy=False).tobytes() for part in output)


def unpack_output(payload: bytes, layout: Layout) -> Output:
    """Read `pack_output`."""
    values = np.frombuffer(payload, "<f4").astype(np.float32)
    return Output(*np.split(values, (layout.actions, 2 * layout.actions)))


def receive(link: socket.socket, timeout: float) -> Packet | None:
    """The next packet of this protocol within `timeout` s, or None. A closed port on the other side counts as
    silence."""
    deadline = time.monotonic() + timeout
    while True:
        ready, _, _ = select.select([link], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        try:
            packet = unpack(link.recv(MAX_PACKET))
        except ConnectionRefusedError:
            continue
        if packet is not None:
            return packet


class Read(IntEnum):
    """How a read ended: with a new state, without one, or with the episode's end.

    A robot may also have stopped itself.
    """

    OK = 0
    TIMEOUT = 1
    CLOSED = 2
    STOPPED = 3


class UdpHardware:
    """The robot at the other end of the link, as a loop's hardware.

    Attributes:
        state: the last one read.
    """

    state: RobotState

    def __init__(self, layout: Layout, host: str, port: int, lockstep: bool, wait: float) -> None:
        """Greet the robot until it answers.

        Args:
            lockstep: ask a simulated robot to wait for a control at each step.
            wait: s until it must have answered.

        Raises:
            ConfigError: no answer, or a robot of another layout.
        """
        self._layout, self._where = layout, f"robot={host}:{port}"
        self._last_sequence = -1
        self._last_packet = b""
        self._began = time.monotonic()
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._link.connect((host, port))
        except OSError as error:
            raise ConfigError(f"{self._where}: {error}") from error
        deadline = self._began + wait
        while time.monotonic() < deadline:
            self._send(Kind.HELLO, 0, Flag.LOCKSTEP if lockstep else 0, layout.pack())
            packet = receive(self._link, HELLO_PERIOD)
            if packet is not None and packet.kind == Kind.WELCOME:
                layout.check(Layout.unpack(packet.payload), self._where)
                return
        raise ConfigError(f"{self._where}: no robot answers")

    def read(self, timeout: float) -> Read:
        """Put the newest unread state into `state`. Wait for one up to `timeout` s."""
        deadline = time.monotonic() + timeout
        found = Read.TIMEOUT
        while True:
            left = 0.0 if found is Read.OK else max(0.0, deadline - time.monotonic())
            packet = receive(self._link, left)
            if packet is None:
                return found
            if packet.kind != Kind.STATE:
                continue
            if packet.flags & (Flag.END | Flag.STOPPED):
                return Read.CLOSED if packet.flags & Flag.END else Read.STOPPED
            if packet.sequence > self._last_sequence:
                self._last_sequence = packet.sequence
                self.state = unpack_state(packet.payload, self._layout)
                found = Read.OK
            elif found is Read.TIMEOUT and self._last_packet:
                self._transmit(self._last_packet)  # the robot repeats a state, so our answer was lost

    def write(self, output: Output) -> None:
        """Send the answer to the last state."""
        self._last_packet = self._send(Kind.CONTROL, self._last_sequence, 0, pack_output(output))

    def stop(self, reason: str) -> None:
        """Tell the robot to stop (docs/deploy.md). The packet goes three times, since packets get lost."""
        for _ in range(3):
            self._send(Kind.STOP, max(self._last_sequence, 0), 0, reason.encode())

    def commands(self, values: np.ndarray) -> None:
        """Overwrite commands with an operator's input. This link carries none."""

    def _send(self, kind: Kind, sequence: int, flags: int, payload: bytes) -> bytes:
        data = pack(kind, sequence, flags, time.monotonic() - self._began, payload)
        self._transmit(data)
        return data

    def _transmit(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionRefusedError):  # nobody listens any more, which shows as silence
            self._link.send(data)
