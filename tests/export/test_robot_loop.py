"""The robot loops in C++ and in Python, each the very program that would run on a robot, with the simulated robot."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualfid_robot.errors import ConfigError
from dualfid_robot.export.cpp.header import write_header
from dualfid_robot.onboard.limits import Limits, stop_control
from dualfid_robot.onboard.link import Kind, Layout, Output, fnv1a, pack, pack_output, unpack, unpack_output
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import MEMORY_INPUT, Controller, ExportedPolicy, RobotState, write_sums
from dualfid_robot.play.player import read_starts, rows_of
from dualfid_robot.play.server import Episode, Faults, RobotServer
from dualfid_robot.play.simulated_robot import SimulatedRobot
from dualfid_robot.robots.model import RobotModel

ROOT = Path(__file__).parents[2]

LOOPS = ("cpp", "python")
LONG = 3000  # steps, where a test ends the run itself
PATIENT = ("--max-missed", "100000", "--timeout", "20")  # in real time on a machine that is busy
FINISHED, REFUSED, STOPPED = 0, 2, 3

# What a robot need not have must not be asked for: importing any of these fails.
WITHOUT = ("torch", "mujoco", "hydra", "omegaconf", "onnx")
RUN_WITHOUT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({WITHOUT}))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

ExportOf = Callable[..., Path]


@dataclasses.dataclass
class Result:
    """What a loop and its robot report."""

    status: int
    error: str
    summary: dict[str, Any]
    episode: Episode


class Robot:
    """One exported policy, its simulated robot, and the loops that run it."""

    def __init__(self, export: Path, folder: Path) -> None:
        shutil.copytree(export, folder / "export")
        self.folder, self.build = folder / "export", folder / "build"
        self.metadata = ExportedPolicy(self.folder).metadata
        write_header(self.metadata, self.folder)
        write_sums(self.folder)
        robot = RobotModel(self.folder / self.metadata.robot.file, self.metadata.robot.feet)
        evaluation = next(iter(self.metadata.evaluations.values()))
        self.expected_return, self.expected_length = evaluation.returns[0], evaluation.lengths[0]
        self.simulated = SimulatedRobot.build(self.metadata, robot, evaluation.simulator, 1)
        start = rows_of(read_starts(ExportedPolicy(self.folder)), 0, 1)
        self.qpos, self.qvel = start.pop("qpos"), start.pop("qvel")
        self.memory = {name.removeprefix(MEMORY_INPUT): values for name, values in start.items()}

    @functools.cached_property
    def binary(self) -> Path:
        """The C++ loop, built as docs/deploy.md says."""
        return build(self.folder, self.build)

    def command(self, loop: str) -> list[str]:
        """The command line of a loop."""
        if loop == "cpp":
            return [str(self.binary)]
        return [sys.executable, "-c", RUN_WITHOUT, str(ROOT / "deploy/python/robot_loop.py"), str(self.folder)]

    def call(self, loop: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a loop without a robot."""
        return subprocess.run([*self.command(loop), *options], capture_output=True, text=True, timeout=60)

    def run(
        self,
        loop: str,
        *options: str,
        faults: Faults | None = None,
        watchdog: float = 20.0,
        episode_length: int | None = None,
        at_step: tuple[int, Callable[[subprocess.Popen[str]], None]] | None = None,
    ) -> Result:
        """One episode of a loop with the simulated robot.

        Args:
            at_step: a step, and what is then done to the loop's process.
        """
        policy = ExportedPolicy(self.folder)
        if episode_length is not None:
            policy.metadata = dataclasses.replace(policy.metadata, episode_length=episode_length)
        server = RobotServer(self.simulated, policy, 0, faults=faults, watchdog=watchdog)
        command = [*self.command(loop), "--port", str(server.port), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        steps = 0

        def after_step(state: RobotState) -> None:
            nonlocal steps
            steps += 1
            if at_step is not None and steps == at_step[0]:
                at_step[1](process)

        try:
            episode = server.run(self.qpos, self.qvel, self.memory, after_step=after_step, wait=30.0)
            out, error = process.communicate(timeout=30.0)
        finally:
            server.close()
            process.kill()
        return Result(process.returncode, error, json.loads(out) if out else {}, episode)


def build(policy: Path, folder: Path) -> Path:
    """Build the C++ loop for the policy.hpp in a folder."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("cmake or a C++ compiler is missing")
    for arguments in (
        ["-S", str(ROOT / "deploy/cpp"), "-B", str(folder), f"-DPOLICY_DIR={policy}"],
        ["--build", folder],
    ):
        done = subprocess.run(["cmake", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "robot_loop"


@pytest.fixture(scope="module")
def robot_of(export_of: ExportOf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Robot]]:
    robots: dict[str, Robot] = {}

    def made(task: str) -> Robot:
        if task not in robots:
            robots[task] = Robot(export_of(task), tmp_path_factory.mktemp(f"robot_{task}"))
        return robots[task]

    yield made
    for robot in robots.values():
        robot.simulated.close()


@pytest.fixture(scope="module")
def ant_robot(robot_of: Callable[[str], Robot]) -> Robot:
    return robot_of("Ant")


@pytest.fixture(scope="module")
def ant_metadata(export_of: ExportOf) -> Metadata:
    return ExportedPolicy(export_of("Ant")).metadata


def reference_controls(robot: Robot) -> np.ndarray:
    """Controls of runtime.Controller in the same robot without any link: (steps, act_dim)."""
    controller = Controller(ExportedPolicy(robot.folder))
    robot.simulated.reset(robot.qpos, robot.qvel)
    state = robot.simulated.measure()
    controller.begin(state, robot.memory)
    controls = []
    for _ in range(int(robot.expected_length)):
        controls.append(controller.act(state)[0].copy())
        robot.simulated.step(controller.control)
        state = robot.simulated.measure()
    return np.array(controls)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("task", ["Cartpole", "Ant"])
def test_return_is_that_of_the_exporters_evaluation(robot_of: Callable[[str], Robot], task: str, loop: str) -> None:
    robot = robot_of(task)
    result = robot.run(loop, "--lockstep")
    assert result.status == FINISHED, result.error
    assert result.summary["reason"] == "the robot has ended the run"
    assert result.episode.steps == result.summary["steps"] == robot.expected_length
    assert result.episode.total_reward == pytest.approx(robot.expected_return, abs=1e-3, rel=1e-3)
    np.testing.assert_allclose(np.array(result.episode.controls), reference_controls(robot), atol=1e-4)
    assert result.episode.control_difference <= 1e-4
    assert result.episode.stopped == "" and result.episode.lost_controls == 0


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_real_time_reports_its_times(ant_robot: Robot, loop: str) -> None:
    result = ant_robot.run(loop, *PATIENT, "--duration", "0.5", episode_length=LONG)
    assert result.status == FINISHED, result.error
    assert result.summary["reason"] == result.episode.stopped == "all steps made"
    assert result.summary["steps"] == round(0.5 / ant_robot.metadata.timing.control_dt)
    for name in ("inference_us", "period_jitter_us", "control_jitter_us"):
        times = result.summary[name]
        assert 0.0 <= times["p50"] <= times["p99"] <= times["max"]
    assert result.summary["inference_us"]["p50"] > 0.0
    assert result.episode.steps > 0


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_lost_packets_are_bridged(ant_robot: Robot, loop: str) -> None:
    """20 of them, so that a loop that is late itself finds some of their periods."""
    result = ant_robot.run(loop, *PATIENT, faults=Faults(drop_from=5, drop_steps=20))
    assert result.status == FINISHED, result.error
    assert result.summary["missing_states"] >= 1
    assert result.episode.stopped == ""


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_lockstep_does_not_depend_on_lost_packets(ant_robot: Robot, loop: str) -> None:
    whole = ant_robot.run(loop, "--lockstep")
    lossy = ant_robot.run(loop, "--lockstep", faults=Faults(drop=0.3, seed=1))
    assert lossy.status == FINISHED, lossy.error
    assert lossy.episode.total_reward == whole.episode.total_reward
    assert lossy.episode.steps == whole.episode.steps


REAL_TIME = ("--max-missed", "100000")
FAULTS: dict[str, tuple[tuple[str, ...], Faults, str]] = {
    "missed deadlines": (("--slow", "0.05", "--timeout", "20"), Faults(), "5 consecutive deadlines missed"),
    "dropped packets": ((*REAL_TIME, "--timeout", "0.2"), Faults(drop_from=5, drop_steps=LONG), "no state for 0.2 s"),
    "dropped packets in lockstep": (
        ("--lockstep", "--timeout", "0.2"),
        Faults(drop_from=5, drop_steps=LONG),
        "no state for 0.2 s",
    ),
    "dead simulator": ((*REAL_TIME, "--timeout", "0.2"), Faults(die_at=5), "no state for 0.2 s"),
    "NaN": (("--lockstep",), Faults(nan_at=5), "the state is not finite"),
    "joint out of range": (("--lockstep",), Faults(out_of_range_at=5), "joint hip_1 is at"),
    "joint too fast": (("--lockstep", "--velocity-factor", "0.01"), Faults(), "moves at"),
}


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("fault", FAULTS)
def test_safe_stop(ant_robot: Robot, fault: str, loop: str) -> None:
    options, faults, reason = FAULTS[fault]
    result = ant_robot.run(loop, *options, faults=faults, episode_length=LONG)
    assert result.status == STOPPED, result.error
    lines = result.error.splitlines()
    assert len(lines) == 1 and lines[0].startswith("robot_loop: safe stop: ") and reason in lines[0]
    assert result.summary["exit"] == STOPPED and reason in result.summary["reason"]
    if faults.die_at is None:
        assert result.episode.stopped == result.summary["reason"]
        assert result.episode.rest_speed is not None


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_operator_ends_a_run(ant_robot: Robot, sent: signal.Signals, loop: str) -> None:
    result = ant_robot.run(loop, *PATIENT, episode_length=LONG, at_step=(10, lambda process: process.send_signal(sent)))
    assert result.status == FINISHED, result.error
    assert result.error == "robot_loop: stopped: interrupted\n"
    assert result.episode.stopped == result.summary["reason"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_a_robot_without_controls_stops_by_itself(ant_robot: Robot, loop: str) -> None:
    result = ant_robot.run(loop, *PATIENT, "--slow", "1", watchdog=0.4, episode_length=LONG)
    assert result.status == STOPPED, result.error
    assert result.summary["reason"] == "the robot has stopped by itself"
    assert result.episode.stopped == "robot: no control for 0.4 s"


@pytest.mark.slow
def test_a_robot_outlives_its_loop(ant_robot: Robot) -> None:
    result = ant_robot.run(
        "cpp", *PATIENT, watchdog=0.3, episode_length=LONG, at_step=(5, lambda process: process.kill())
    )
    assert result.status == -signal.SIGKILL
    assert result.episode.stopped == "robot: no control for 0.3 s"


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_another_robot_is_refused_by_both_sides(robot_of: Callable[[str], Robot], loop: str) -> None:
    ant, cartpole = robot_of("Ant"), robot_of("Cartpole")
    server = RobotServer(ant.simulated, ExportedPolicy(ant.folder), 0)
    command = [*cartpole.command(loop), "--port", str(server.port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with pytest.raises(ConfigError, match=r"^loop=127.0.0.1:\d+: is made for nq=2, this side for nq=15$"):
        server.run(ant.qpos, ant.qvel, ant.memory)
    _, error = process.communicate(timeout=30.0)
    server.close()
    assert process.returncode == REFUSED
    assert error == f"error: robot=127.0.0.1:{server.port}: is made for nq=15, this side for nq=2\n"


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_loop_refuses(ant_robot: Robot, loop: str) -> None:
    for options, line in {
        ("--port", "9", "--wait", "0.1"): "error: robot=127.0.0.1:9: no robot answers",
        ("--port", "9", "--command", "jump=1"): "error: --command jump=1: no such command; allowed are []",
        (): "error: --port: is required",
    }.items():
        result = ant_robot.call(loop, *options)
        assert result.returncode == REFUSED
        assert result.stderr.splitlines()[0] == line
    assert ant_robot.call(loop, "--port", "9", "--dial", "0.5").returncode == REFUSED


@pytest.mark.slow
def test_a_sample_that_differs_is_refused(ant_robot: Robot, tmp_path: Path) -> None:
    header = (ant_robot.folder / "policy.hpp").read_text()
    name = "kSampleAction[] = {"
    assert name in header
    first = header.index(name) + len(name)
    (tmp_path / "policy.hpp").write_text(header[:first] + "0.5F + " + header[first:].lstrip())
    done = subprocess.run([build(tmp_path, tmp_path / "build"), "--port", "9"], capture_output=True, text=True)
    assert done.returncode == REFUSED
    assert done.stderr == "error: the stored sample's action is off by 0.5 on this machine\n"


CAN_BUS = """
struct Frame { int actuator; float position, velocity; };
struct CanBus { bool receive(Frame&, double timeout); void send_torque(int actuator, float torque); };
"""


@pytest.mark.slow
def test_the_example_of_the_documentation_compiles(ant_robot: Robot, tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("a C++ compiler is missing")
    (example,) = re.findall(r"```cpp\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    (tmp_path / "can_bus.hpp").write_text(CAN_BUS)
    (tmp_path / "arm.cpp").write_text(example + "Arm arm(CanBus& bus) { return Arm(bus); }\n")
    folders = [f"-I{folder}" for folder in (tmp_path, ant_robot.folder, ROOT / "deploy/cpp")]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]
    command = ["c++", "-std=c++17", "-fsyntax-only", *warnings, *folders, str(tmp_path / "arm.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_rate_limit(ant_robot: Robot, loop: str) -> None:
    result = ant_robot.run(loop, "--lockstep", "--rate-limit", "0.01")
    assert result.status == FINISHED, result.error
    steps = np.abs(np.diff(np.array(result.episode.controls), axis=0))
    assert 0.0099 < steps.max() < 0.0101
    assert result.summary["limited_controls"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Ant", "Anymal"])
def test_both_loops_have_the_same_limits(robot_of: Callable[[str], Robot], task: str) -> None:
    robot = robot_of(task)
    for options in ((), ("--position-margin", "0.3", "--velocity-factor", "1.5")):
        cpp, python = (json.loads(robot.call(loop, "--limits", *options).stdout) for loop in LOOPS)
        assert cpp.pop("actuators") == python.pop("actuators")
        assert cpp.keys() == python.keys()
        for name, bounds in cpp.items():
            np.testing.assert_allclose(np.array(bounds, float), np.array(python[name], float), rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_commands_reach_the_policy(robot_of: Callable[[str], Robot], loop: str) -> None:
    """The robot's shadow of the loop, fed with the commands of its packets, finds the same controls."""
    robot = robot_of("Anymal")
    name = robot.metadata.commands[0].name
    driven = robot.run(loop, "--lockstep", "--steps", "5", "--command", f"{name}=1.5")
    still = robot.run(loop, "--lockstep", "--steps", "5")
    assert driven.status == still.status == FINISHED, driven.error + still.error
    assert driven.episode.control_difference <= 1e-4
    assert np.abs(np.array(driven.episode.controls) - np.array(still.episode.controls)).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Ant", "Anymal"])
def test_what_a_stopped_robot_is_sent(
    robot_of: Callable[[str], Robot], monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Ant's motors get nothing, Anymal's servos the position at which the loop last saw the joints."""
    robot = robot_of(task)
    controls, states = [], []
    step = robot.simulated.step

    def spy(control: np.ndarray) -> None:
        states.append(robot.simulated.measure().qpos[0, 7:])
        controls.append(control[0].copy())
        step(control)

    monkeypatch.setattr(robot.simulated, "step", spy)
    result = robot.run("python", "--lockstep", "--steps", "5")
    assert result.episode.stopped == "all steps made" and result.episode.steps == 5
    held = states[5] if task == "Anymal" else np.zeros_like(states[5])
    assert len(controls) == 5 + 50
    np.testing.assert_array_equal(controls[5:], np.tile(held, (50, 1)))
    assert np.abs(states[5] - states[4]).max() > 1e-3  # it was moving


def test_limits_of_motors(ant_metadata: Metadata) -> None:
    weak = [dataclasses.replace(actuator, effort_limit=abs(actuator.gear) / 4) for actuator in ant_metadata.actuators]
    limits = Limits.of(dataclasses.replace(ant_metadata, actuators=tuple(weak)), 0.1, 2.0)
    np.testing.assert_allclose(limits.control_high, 0.25)
    np.testing.assert_allclose(limits.control_low, -0.25)
    joints = {joint.name: joint for joint in ant_metadata.joints}
    for i, actuator in enumerate(ant_metadata.actuators):
        joint = joints[actuator.joint]
        assert joint.low is not None and joint.high is not None
        margin = 0.1 * (joint.high - joint.low)
        visited = ant_metadata.visited.position_low[i], ant_metadata.visited.position_high[i]
        assert limits.position_low[i] == pytest.approx(min(joint.low, visited[0]) - margin, rel=1e-6)
        assert limits.position_high[i] == pytest.approx(max(joint.high, visited[1]) + margin, rel=1e-6)
        assert limits.velocity[i] == pytest.approx(2.0 * ant_metadata.visited.velocity[i], rel=1e-6)


def test_a_velocity_limit_comes_first(ant_metadata: Metadata) -> None:
    rated = [dataclasses.replace(actuator, velocity_limit=7.0) for actuator in ant_metadata.actuators]
    limits = Limits.of(dataclasses.replace(ant_metadata, actuators=tuple(rated)))
    np.testing.assert_array_equal(limits.velocity, 7.0)


@pytest.mark.parametrize(("cumulative", "high"), [(False, 2.0), (True, 1.0)])
def test_limits_of_position_servos(ant_metadata: Metadata, cumulative: bool, high: float) -> None:
    """A joint in [-1, 1]: an absolute target may reach 2, as in training; one that grows step by step stays within."""
    n = len(ant_metadata.actuators)
    servos = [
        dataclasses.replace(a, kind="position", control_low=None, control_high=3.0) for a in ant_metadata.actuators
    ]
    joints = [dataclasses.replace(joint, low=-1.0, high=1.0) for joint in ant_metadata.joints]
    action = dataclasses.replace(
        ant_metadata.action, scale=(0.5,) * n, offset=(1.0,) * n, clip=2.0, cumulative=cumulative
    )
    metadata = dataclasses.replace(ant_metadata, actuators=tuple(servos), joints=tuple(joints), action=action)
    limits = Limits.of(metadata)
    np.testing.assert_array_equal(limits.control_high, high)
    np.testing.assert_array_equal(limits.control_low, -1.0)


def test_a_stopped_robot_holds_its_servos_and_frees_its_motors(ant_metadata: Metadata) -> None:
    kinds = ("position", "motor", "velocity", "dc motor", "position", "other", "motor", "position")
    actuators = [
        dataclasses.replace(actuator, kind=kind, gear=1.0, control_low=None, control_high=0.3)
        for actuator, kind in zip(ant_metadata.actuators, kinds, strict=True)
    ]
    metadata = dataclasses.replace(ant_metadata, actuators=tuple(actuators))
    joints = {joint.name: joint.qpos for joint in metadata.joints}
    qpos = np.linspace(-1.0, 1.0, metadata.robot.nq, dtype=np.float32)[None]
    for actuator, control in zip(actuators, stop_control(metadata, qpos)[0], strict=True):
        held = min(qpos[0, joints[actuator.joint]], 0.3) if actuator.kind == "position" else 0.0
        assert control == pytest.approx(held)


def test_fnv1a() -> None:
    """Test vectors of the FNV reference."""
    assert fnv1a(b"") == 0xCBF29CE484222325
    assert fnv1a(b"a") == 0xAF63DC4C8601EC8C
    assert fnv1a(b"foobar") == 0x85944171F73967E8


@given(
    st.sampled_from(list(Kind)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=64),
)
def test_packets_come_back(kind: Kind, sequence: int, flags: int, time: float, payload: bytes) -> None:
    data = pack(kind, sequence, flags, time, payload)
    assert data[:4] == b"DFRL"
    assert unpack(data) == (kind, sequence, flags, time, payload)
    assert unpack(b"x" + data[1:]) is None
    assert unpack(data[:23]) is None


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 1000))
def test_outputs_come_back(actions: int, commands: int, seed: int) -> None:
    layout = Layout(1, 1, 0, actions, commands, 0, 0.01)
    random = np.random.default_rng(seed)
    output = Output(*(random.standard_normal(n).astype(np.float32) for n in (actions, actions, commands)))
    for sent, received in zip(output, unpack_output(pack_output(output), layout), strict=True):
        np.testing.assert_array_equal(sent, received)


def test_a_layout_names_what_differs(ant_metadata: Metadata) -> None:
    layout = Layout.of(ant_metadata)
    assert Layout.unpack(layout.pack()) == layout
    layout.check(layout, "robot=here")
    swapped = dataclasses.replace(ant_metadata, actuators=ant_metadata.actuators[::-1])
    with pytest.raises(ConfigError, match=r"robot=here: has other names"):
        layout.check(Layout.of(swapped), "robot=here")
    with pytest.raises(ConfigError, match=r"acts every 0\.5 s"):
        layout.check(dataclasses.replace(layout, control_dt=0.5), "robot=here")


def test_a_taken_port_is_one_line(ant_robot: Robot) -> None:
    server = RobotServer(ant_robot.simulated, ExportedPolicy(ant_robot.folder), 0)
    with pytest.raises(ConfigError, match=f"^udp_port={server.port}: cannot listen"):
        RobotServer(ant_robot.simulated, ExportedPolicy(ant_robot.folder), server.port)
    with pytest.raises(ConfigError, match=r"no robot loop called within 0.1 s"):
        server.run(ant_robot.qpos, ant_robot.qvel, ant_robot.memory, wait=0.1)
    server.close()
