"""A task's graphs against the task: single calls for every task, and whole episodes beside a pool of environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from dualfid_robot.command import Command
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task, task_names
from dualfid_robot.envs.reward import add_up, replaced_where
from dualfid_robot.envs.task import ActionMapping, Start, State, Task, TaskConfig, Term
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.graphs import write_graphs
from dualfid_robot.export.networks import OPSET
from dualfid_robot.export.robot_description import describe_actuators
from dualfid_robot.onboard import metadata as meta
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import (
    EPISODE,
    MEASURE_OUTPUT,
    MEMORY_INPUT,
    MEMORY_OUTPUT,
    OBSERVATION,
    REWARD_OUTPUT,
    Controller,
    ExportedPolicy,
    RobotState,
    _HistoryLayout,
    _session,
)
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.mujoco.simulator import MujocoSimulator
from dualfid_robot.tasks.cartpole import Cartpole, CartpoleConfig

ROOT = Path(__file__).parents[2]

TOLERANCE = 1e-5  # of numbers up to 1, and of larger ones' size
DT = 1 / 60
WORLDS = 6

ExportOf = Callable[..., Path]
TaskFiles = Callable[[str], tuple[Task, Path]]


class Follow(Task):
    """Cartpole with all that a graph can meet: histories, privileged terms, commands that training draws anew, a memory
    that is observed and one that is not, and writes into parts of tensors."""

    memory: ClassVar[Mapping[str, int]] = {"command": 2, "smooth": 2, "count": 1, "origin": 1}
    commands = (Command("place", "m", "command", 0, -1.0, 1.0), Command("pace", "1", "command", 1, 0.0, 1.0))

    def __init__(self, config: TaskConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("joints", 2, scale=2.0, history=3),
            Term("error", 1),
            Term("smooth", 2, scale=0.5, history=2),
            Term("count", 1),
            Term("control", 1, history=2),
        )
        self.privileged_terms = (Term("speeds", 2, history=2), Term("friction", 1))
        self.action_mapping = ActionMapping("force", scale=0.3, cumulative=True)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return 0.2 * torch.rand(n, 2, generator=generator), torch.zeros(n, 2)

    def begin_episode(self, last: State, generator: torch.Generator) -> Start:
        n = len(last.qpos)
        start = super().begin_episode(last, generator)
        drawn = {"command": torch.rand(n, 2, generator=generator), "origin": torch.rand(n, 1, generator=generator)}
        return Start(start.qpos, start.qvel, start.memory | drawn)

    def initial_control(self, qpos: Tensor) -> Tensor:
        return 0.5 * qpos[:, :1] - 0.2

    def observe(self, state: State) -> dict[str, Tensor]:
        joints = state.qpos.clone()
        joints[:, ::2] -= state.memory["origin"]
        joints[:, 1] *= 2.0
        return {
            "joints": joints,
            "error": torch.hypot(state.qpos[:, 0] - state.memory["command"][:, 0], state.qpos[:, 1]),
            "smooth": state.memory["smooth"],
            "count": 0.1 * state.memory["count"],
            "control": state.control,
            "speeds": state.qvel,
            "friction": state.parameters.get("friction", torch.ones_like(state.qpos[:, 0])),
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return observed["count"][:, 0] >= 1.3 + state.qpos[:, 0]

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        terms = {
            "progress": (state.qpos - previous_qpos).sum(1),
            "error": -observed["error"] * observed["smooth"][:, 0],
        }
        return replaced_where(terminated, terms, "end", -1.0)

    def advance(self, state: State, observed: dict[str, Tensor], generator: torch.Generator) -> None:
        memory = state.memory
        drawn = torch.rand(state.qpos.shape[0], 2, generator=generator, device=generator.device)
        memory["command"].copy_(torch.where((state.step % 5 == 0)[:, None], drawn, memory["command"]))
        memory["smooth"][:] = 0.8 * memory["smooth"] + 0.2 * state.action
        memory["count"] += 1.0
        observed["count"] = 0.1 * memory["count"]
        observed["error"] = torch.hypot(state.qpos[:, 0] - memory["command"][:, 0], state.qpos[:, 1])

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"error": observed["error"].clone(), "late": state.step > 5}


def build_task(name: str, **settings: Any) -> Task:
    """A task as its YAML describes it, or the one above."""
    if name == "Follow":
        return Follow(TaskConfig(WORLDS, 25), RobotModel(ASSETS / "cartpole.xml"), DT, "cpu")
    with hydra_apart():
        experiment = Experiment(compose_config([f"task={name}"]))
    experiment.task.env.update(settings)
    return experiment.make_task()


@pytest.fixture(scope="module")
def traced(export_of: ExportOf, tmp_path_factory: pytest.TempPathFactory) -> TaskFiles:
    """A task by name, and a folder with its graphs."""
    follow = tmp_path_factory.mktemp("Follow")
    write_graphs(build_task("Follow"), follow)
    return lambda name: (build_task(name), follow if name == "Follow" else export_of(name))


class Simulator(MujocoSimulator):
    """Keeps the states to which steps led, which a pool replaces where an episode ends."""

    reached: tuple[Tensor, Tensor, Tensor]

    def finish_step(self) -> None:
        super().finish_step()
        self.reached = self.qpos.clone(), self.qvel.clone(), self.contact_wrench.clone()


def make_pool(task: Task) -> EnvironmentPool:
    settings = MujocoSimulator.Config(substeps=4, threads=1)
    simulator = Simulator(settings, task.robot, WORLDS, task.control_dt, task.contact_bodies)
    return EnvironmentPool(simulator, task, seed=3)


def run(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    results = session.run(outputs, {node.name: inputs[node.name].numpy() for node in session.get_inputs()})
    return {name: torch.from_numpy(array) for name, array in zip(outputs, results, strict=True)}


def assert_close(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, what: str = "") -> None:
    actual, expected = (torch.as_tensor(values).detach().float() for values in (actual, expected))
    assert actual.shape == expected.shape, what
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text: f"{what}: {text}")


def visited(task: Task) -> tuple[State, Tensor]:
    """States of a pool under random actions, and the positions of one step before."""
    pool, states, before = make_pool(task), [], []
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        previous = pool.simulator.qpos.clone()
        pool.step(torch.randn(WORLDS, task.num_actions, generator=generator))
        everything = pool._state(WORLDS)
        states.append(everything.rows(torch.arange(WORLDS)))
        before.append(previous)
    pool.simulator.close()
    fields = ("qpos", "qvel", "contact_wrench", "action", "control", "step")
    together = [torch.cat([getattr(state, name) for state in states]) for name in fields]
    memory = {name: torch.cat([state.memory[name] for state in states]) for name in task.memory}
    return State(*together, memory), torch.cat(before)


def shown(task: Task, observed: dict[str, Tensor], state: State) -> Tensor:
    """What the policy sees of terms without a history."""
    out = torch.zeros(len(state.qpos), task.num_observations)
    task.write_observation(observed, out, first=True)
    return out[:, : task.num_observations - task.num_privileged]


@pytest.mark.slow
@pytest.mark.parametrize("name", task_names())
@pytest.mark.parametrize("rows", [1, 7, 8 * WORLDS])
def test_graphs_compute_what_the_task_does(traced: TaskFiles, name: str, rows: int) -> None:
    task, folder = traced(name)
    everything, previous_qpos = visited(task)
    state, previous_qpos = everything.rows(torch.arange(rows)), previous_qpos[:rows]
    inputs = {key: getattr(state, key) for key in ("qpos", "qvel", "contact_wrench", "action", "control", "step")}
    inputs |= {MEMORY_INPUT + key: values for key, values in state.memory.items()} | {"previous_qpos": previous_qpos}

    observed = task.observe(state)
    terminated = task.terminated(state, observed)
    judged = run(folder / EPISODE, inputs)
    terms = task.reward(previous_qpos, state, observed, terminated)
    assert_close(judged["reward"], add_up(terms.values()), "reward")
    for key, values in terms.items():
        assert_close(judged[REWARD_OUTPUT + key], values, key)
    assert torch.equal(judged["terminated"], terminated)
    measures = task.measure(state, observed)
    assert set(judged) == {
        *("reward", "terminated"),
        *(REWARD_OUTPUT + key for key in terms),
        *(MEASURE_OUTPUT + key for key in measures),
    }
    for key, values in measures.items():
        assert_close(judged[MEASURE_OUTPUT + key], values, key)

    at_reset = shown(task, task.observe(state), state)
    advanced = state.rows(torch.arange(rows))
    later = task.observe(advanced)
    task.advance(advanced, later, torch.Generator())
    on_the_way = shown(task, later, advanced)
    mixed = torch.arange(rows) % 3 == 0
    for first in (torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool), mixed):
        outputs = run(folder / OBSERVATION, inputs | {"first": first})
        assert_close(outputs["values"], torch.where(first[:, None], at_reset, on_the_way), "values")
        assert_close(outputs["initial_control"], task.initial_control(state.qpos), "initial_control")
        for key, before in state.memory.items():
            after = torch.where(first[:, None], before, advanced.memory[key])
            assert_close(outputs.get(MEMORY_OUTPUT + key, before), after, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", task_names())
def test_files_are_plain_onnx(traced: TaskFiles, name: str) -> None:
    task, folder = traced(name)
    assert not [path for path in folder.iterdir() if "onnx" in path.name and path.suffix != ".onnx"]  # data beside them
    heights = 4 * task.robot.model.nhfielddata
    for path in (folder / EPISODE, folder / OBSERVATION):
        model = onnx.load(path)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "n"
        assert path.stat().st_size < heights + 40_000  # a height field stands there once
        assert str(ROOT).encode() not in path.read_bytes()


class Linear(ExportedPolicy):
    """An export of graphs alone, whose network is a fixed linear map."""

    def __init__(self, task: Task, folder: Path) -> None:
        mapping, nu = task.action_mapping, task.num_actions
        numbers = [np.broadcast_to(value, nu).tolist() for value in (mapping.scale, mapping.offset)]
        terms = [
            meta.ObservationTerm(term.name, term.size, term.scale, 5.0, 0.0, term.history, "", "", ())
            for term in task.terms
        ]
        obs_dim = task.num_observations - task.num_privileged
        description = SimpleNamespace(
            action=meta.Action("", tuple(numbers[0]), tuple(numbers[1]), mapping.clip, mapping.cumulative),
            observation=terms,
            actuators=describe_actuators(task.robot),
            memory=[meta.Memory(name, columns) for name, columns in task.memory.items()],
            policy=SimpleNamespace(dial=None, obs_dim=obs_dim, act_dim=nu),
        )
        self.folder, self.metadata = folder, cast(Metadata, description)
        self._observe, self._layout = _session(folder / OBSERVATION), _HistoryLayout(self.metadata)
        self._weight = np.random.default_rng(0).normal(0.0, obs_dim**-0.5, (obs_dim, nu)).astype(np.float32)

    def action(self, observation: np.ndarray, dial: float = 1.0) -> np.ndarray:
        return observation @ self._weight


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Ant", "AnymalTerrain", "FrankaCabinet", "Follow"])
def test_a_controller_lives_through_episodes_as_a_pool_does(traced: TaskFiles, name: str) -> None:
    """One controller per world, which is told nothing but states, how episodes began, and what an operator commands."""
    _, folder = traced(name)
    task = build_task(name, episodeLength=20) if name != "Follow" else build_task(name)
    pool, policy = make_pool(task), Linear(task, folder) if name == "Follow" else ExportedPolicy(folder)
    simulator = cast(Simulator, pool.simulator)
    controllers = [Controller(policy) for _ in range(WORLDS)]
    commands = {command.memory for command in task.commands}
    actor = slice(0, policy.metadata.policy.obs_dim)

    def states() -> list[RobotState]:
        arrays = [values.numpy().copy() for values in (simulator.qpos, simulator.qvel, simulator.contact_wrench)]
        return [RobotState(*(array[[world]] for array in arrays)) for world in range(WORLDS)]

    def memories() -> list[dict[str, np.ndarray]]:
        return [{key: v[[i]].numpy().copy() for key, v in pool.state_dict()["memory"].items()} for i in range(WORLDS)]

    now, starts, ends = states(), memories(), 0
    for controller, state, memory in zip(controllers, now, starts, strict=True):
        controller.begin(state, memory)
    for _ in range(50):
        for controller, state in zip(controllers, now, strict=True):
            controller.act(state)
        saw = np.concatenate([controller.observation for controller in controllers])
        assert_close(saw, pool.observations[:, actor], "observation")
        pool.step(torch.from_numpy(policy.action(saw)))
        previous, after = now, [values.numpy() for values in simulator.reached]
        reached = [RobotState(*(array[[world]] for array in after)) for world in range(WORLDS)]
        now, memory = states(), memories()
        ended = (pool.terminated | pool.truncated).tolist()
        for i, controller in enumerate(controllers):
            judged = controller.judge(previous[i].qpos, reached[i])
            assert_close(judged["reward"], pool.reward[[i]], "reward")
            for key, values in pool.reward_terms.items():
                assert_close(judged[REWARD_OUTPUT + key], values[[i]], key)
            assert judged["terminated"].tolist() == pool.terminated[[i]].tolist()
            for key, values in pool.measured.items():
                assert_close(judged[MEASURE_OUTPUT + key], values[[i]], key)
            if ended[i]:
                if name != "Follow":  # whose last drawn command is gone with the episode
                    controller.act(reached[i])
                    assert_close(controller.observation, pool.final_observations[[i], actor], "final observation")
                controller.begin(now[i], memory[i])
                ends += 1
            else:
                assert_close(controller.control, pool.state_dict()["controls"][[i]], "control")
                for key in commands:
                    controller.memory[key][:] = memory[i][key]
    assert ends >= WORLDS
    pool.simulator.close()


@pytest.mark.slow
def test_commands_are_held_for_the_operator(traced: TaskFiles) -> None:
    """What training draws for a command is no output, and what is commanded is what the policy sees."""
    task, folder = traced("Follow")
    inputs = {
        name: torch.zeros(2, columns) for name, columns in {"qpos": 2, "qvel": 2, "action": 1, "control": 1}.items()
    }
    inputs |= {MEMORY_INPUT + name: torch.full((2, columns), 0.25) for name, columns in task.memory.items()}
    inputs["memory.command"][1] = 3.0
    outputs = run(folder / OBSERVATION, inputs | {"first": torch.zeros(2, dtype=torch.bool)})
    assert set(outputs) == {"values", "initial_control", "next.smooth", "next.count"}
    assert outputs["values"][:, 2].tolist() == [0.25, 3.0]  # the term "error", at the origin
    names = {node.name for node in onnx.load(folder / OBSERVATION).graph.input}
    assert names == {"qpos", "action", "control", "first", *(MEMORY_INPUT + name for name in task.memory)}


class Drawing(Follow):
    """Draws the place from which it measures, which is no command."""

    def advance(self, state: State, observed: dict[str, Tensor], generator: torch.Generator) -> None:
        super().advance(state, observed, generator)
        state.memory["origin"] += torch.zeros(1).uniform_(generator=generator)


class Noisy(Cartpole):
    def observe(self, state: State) -> dict[str, Tensor]:
        return super().observe(state) | {"pole_angle": state.qpos[:, 1] + torch.randn_like(state.qpos[:, 1])}


class Meddling(Cartpole):
    def observe(self, state: State) -> dict[str, Tensor]:
        state.qpos[:, 0] *= 2.0
        return super().observe(state)


class MeddlingAdvance(Cartpole):
    def advance(self, state: State, observed: dict[str, Tensor], generator: torch.Generator) -> None:
        state.qvel.zero_()


class Branching(Cartpole):
    def observe(self, state: State) -> dict[str, Tensor]:
        observed = super().observe(state)
        return observed if bool((state.qpos > 0).any()) else observed | {"pole_angle": -observed["pole_angle"]}


class Exotic(Cartpole):
    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return torch.linalg.eigvalsh(state.qpos[:, :, None] * state.qpos[:, None])[:, 0] > 1.0


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Drawing, "task=Drawing: only commands may be drawn while an episode runs; advance draws memory origin"),
        (Noisy, "task=Noisy: only commands may be drawn while an episode runs; random numbers are in values"),
        (Meddling, "task=Meddling: only `advance` may change a state, and only its memory; changed in place: qpos"),
        (MeddlingAdvance, "task=MeddlingAdvance: advance may change memory alone; it changes qvel"),
        (Branching, "task=Branching: its functions cannot be traced (GuardOnDataDependentSymNode: "),
        (Exotic, "task=Exotic: its functions cannot be traced (DispatchError: No ONNX function found for"),
    ],
)
def test_what_cannot_be_a_graph_is_refused_in_one_line(
    cls: type[Task], message: str, cartpole: RobotModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = CartpoleConfig(4, 100) if issubclass(cls, Cartpole) else TaskConfig(4, 100)
    with pytest.raises(ConfigError) as caught:
        write_graphs(cls(config, cartpole, DT, "cpu"), tmp_path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_written_is_no_fault_of_the_task(
    cartpole: RobotModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualfid_robot.export.graphs.onnx_model", lambda *_: onnx.ModelProto())
    with pytest.raises(FileNotFoundError):
        write_graphs(Cartpole(CartpoleConfig(4, 100), cartpole, DT, "cpu"), tmp_path / "absent")


@pytest.mark.slow
def test_tracing_leaves_task_and_random_numbers_as_they_were(cartpole: RobotModel, tmp_path: Path) -> None:
    task = Follow(TaskConfig(4, 100), cartpole, DT, "cpu")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    write_graphs(task, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert all(type(value) is Tensor for value in vars(task).values() if isinstance(value, Tensor))
    pool = make_pool(task)  # a traced value kept somewhere would not compute
    pool.step(torch.zeros(WORLDS, 1))
    pool.simulator.close()


@pytest.mark.parametrize(("memory", "column"), [("target", 0), ("command", 2), ("command", -1)])
def test_commands_must_name_memory(memory: str, column: int, cartpole: RobotModel, tmp_path: Path) -> None:
    (tmp_path / "lost.py").write_text(
        "from dualfid_robot.command import Command\n"
        "from dualfid_robot.tasks.cartpole import Cartpole\n\n\n"
        "class Lost(Cartpole):\n"
        '    memory = {"command": 2}\n'
        f'    commands = (Command("way", "m", "{memory}", {column}, 0.0, 1.0),)\n'
    )
    with pytest.raises(ConfigError) as caught:
        make_task("Lost", {"numEnvs": 4, "episodeLength": 10}, cartpole, DT, folders=[tmp_path])
    assert str(caught.value) == (
        f"task=Lost: command 'way' is column {column} of memory {memory!r}, but memory is {{'command': 2}}"
    )


def test_anymals_commands_are_those_that_training_draws() -> None:
    for name, third in (("Anymal", ("turning rate", "rad/s")), ("AnymalTerrain", ("heading", "rad"))):
        task = build_task(name)
        ranges = task.config.randomCommandVelocityRanges  # type: ignore[attr-defined]
        assert [(c.low, c.high) for c in task.commands] == [ranges.linear_x, ranges.linear_y, ranges.yaw]
        assert [(c.memory, c.column) for c in task.commands] == [("command", column) for column in range(3)]
        assert (task.commands[2].name, task.commands[2].unit) == third
