"""policy.hpp, compiled, against onnxruntime and the Python runtime, which run the files that it was made from."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from bare_policy import bare_metadata, write_bare_policy
from onnx import TensorProto, helper, numpy_helper
from test_program import CASES, COLUMNS, ROWS, Case, example_inputs, run_rows
from untrained import ExportOf

from dualfid_robot.command import Command
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.cpp.compiled_header import (
    FLAGS,
    CompiledHeader,
    check_controller,
    check_header,
    compile_cpp,
    find_compiler,
    run_controller,
)
from dualfid_robot.export.cpp.header import HEADER, write_header
from dualfid_robot.onboard import metadata as meta
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import OBSERVATION, ExportedPolicy, RobotState

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")

QUICK = ("-O0",)
T = 40


def write_observation(path: Path, nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], **memory: int) -> None:
    """A graph of qpos (n, 6), qvel (n, 6), contact_wrench (n, 1, 6), action (n, 2), step, first and memory."""
    kinds = {"qpos": ["n", 6], "qvel": ["n", 6], "contact_wrench": ["n", 1, 6], "action": ["n", 2]}
    kinds |= {f"memory.{name}": ["n", columns] for name, columns in memory.items()}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in kinds.items()]
    inputs += [helper.make_tensor_value_info("step", TensorProto.INT32, ["n"])]
    inputs += [helper.make_tensor_value_info("first", TensorProto.BOOL, ["n"])]
    used = {name for node in nodes for name in node.input}
    outputs = [name for node in nodes for name in node.output if name.startswith(("values", "initial", "next."))]
    graph = helper.make_graph(
        nodes,
        "observation",
        [value for value in inputs if value.name in used],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def moving_policy(folder: Path, history: int = 1, kind: str = "ELU", **changes: object) -> ExportedPolicy:
    """A policy whose observation looks at every input and whose memory moves: a sum of qpos, begun anew each episode,
    and a command. Terms: qpos (6, with a history), memory (6), and action, step and command (4)."""
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["first", "one"], ["begins"]),
        node("Add", ["memory.sum", "qpos"], ["more"]),
        node("Where", ["begins", "memory.sum", "more"], ["next.sum"]),
        node("Cast", ["step"], ["steps"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["steps", "one"], ["clock"]),
        node("Concat", ["qpos", "next.sum", "action", "clock", "memory.command"], ["raw"], axis=1),
        node("Clip", ["raw", "low", "high"], ["values"]),
        node("Slice", ["qvel", "zero", "two", "one"], ["initial_control"]),
    ]
    tensors = {name: np.array([value], np.int64) for name, value in (("zero", 0), ("one", 1), ("two", 2))}
    tensors |= {"low": np.array(-5, np.float32), "high": np.array(5, np.float32)}
    folder.mkdir(exist_ok=True)
    write_observation(folder / OBSERVATION, nodes, tensors, sum=6, command=1)
    obs_dim = 6 * history + 10
    terms = tuple(
        meta.ObservationTerm(name, dim, 1.0, 5.0, 0.0, steps, "", "1", ())
        for name, dim, steps in (("position", 6, history), ("sum", 6, 1), ("rest", 4, 1))
    )
    metadata = bare_metadata(
        6,
        6,
        1,
        obs_dim,
        2,
        observation=terms,
        memory=(meta.Memory("sum", 6), meta.Memory("command", 1)),
        commands=(Command("speed", "m/s", "command", 0, -1.0, 2.0),),
        action=meta.Action("force", (2.0, 0.5), (0.25, -1.0), 0.75, bool(changes.pop("cumulative", False))),
    )
    metadata = dataclasses.replace(metadata, **changes)  # type: ignore[arg-type]
    policy = write_bare_policy(metadata, kind, folder)
    write_header(policy.metadata, folder)
    return policy


def random_states(metadata: Metadata, rows: int = T, seed: int = 0) -> RobotState:
    rng = np.random.default_rng(seed)
    shapes = (metadata.robot.nq,), (metadata.robot.nv,), (len(metadata.robot.contact_bodies), 6)
    return RobotState(*(rng.normal(size=(rows, *shape)).astype(np.float32) for shape in shapes))


def random_commands(metadata: Metadata, rows: int = T) -> np.ndarray | None:
    rng = np.random.default_rng(9)
    return rng.uniform(-1, 2, (rows, len(metadata.commands))).astype(np.float32) if metadata.commands else None


def random_observations(metadata: Metadata, rows: int = 200) -> np.ndarray:
    return (3 * np.random.default_rng(4).normal(size=(rows, metadata.policy.obs_dim))).astype(np.float32)


def copy_of(folder: Path, target: Path) -> ExportedPolicy:
    """An export with a header in it, to which the sums do not speak."""
    shutil.copytree(folder, target)
    policy = ExportedPolicy(target)
    write_header(policy.metadata, target)
    return policy


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["ELU", "Tanh", "ReLU"])
def test_the_network_is_that_of_the_onnx_file(activation: str, tmp_path: Path) -> None:
    """Widths that are no multiples of a block; observations far out."""
    policy = moving_policy(tmp_path, kind=activation)
    observations = random_observations(policy.metadata)
    observations[::7] *= 1e3
    observations[3], observations[4, 2] = 0.0, np.inf
    assert check_header(tmp_path, observations, policy.action(observations)) < 2e-6


@pytest.mark.parametrize("activation", ["ELU", "Tanh", "ReLU"])
def test_nan_reaches_every_action(activation: str, tmp_path: Path) -> None:
    metadata = moving_policy(tmp_path, kind=activation).metadata
    observations = random_observations(metadata, 5)
    observations[2, 3] = np.nan
    with CompiledHeader(tmp_path, QUICK) as header:
        actions = header.forward(observations)
    assert np.isnan(actions[2]).all()
    assert np.isfinite(actions[[0, 1, 3, 4]]).all()


def test_the_dial_turns_the_adapter(tmp_path: Path) -> None:
    policy = moving_policy(tmp_path, kind="dial")
    metadata = policy.metadata
    observations = random_observations(metadata)
    with CompiledHeader(tmp_path, QUICK) as header:
        actions = [header.forward(observations, dial) for dial in (0.0, 0.7, 1.5)]
        states = random_states(metadata)
        found = header.run(states, random_commands(metadata), 0.7)
    for dial, action in zip((0.0, 0.7, 1.5), actions, strict=True):
        np.testing.assert_allclose(action, policy.action(observations, dial), atol=5e-6, rtol=5e-6)
    assert np.abs(actions[0] - actions[1]).min() > 1e-5
    expected = run_controller(policy, states, random_commands(metadata), 0.7)
    for result, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(result, reference, atol=5e-6)


def test_an_operator_of_the_network_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format=cpp: policy\.onnx: operator Softplus \(node .*\) is not known"):
        moving_policy(tmp_path, kind="Softplus")


# --- the controller --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("history", [1, 3])
def test_the_controller_acts_as_the_python_one(cumulative: bool, history: int, tmp_path: Path) -> None:
    """Memory that moves, a command that changes, clocks, histories, bounds of controls."""
    policy = moving_policy(tmp_path, history, cumulative=cumulative)
    states, commands = random_states(policy.metadata), random_commands(policy.metadata)
    assert check_controller(policy, states, commands) < 2e-6
    observations, controls = run_controller(policy, states, commands)
    assert np.abs(observations).max() == 5.0  # the sums reach their bound
    assert controls.std(0).min() > 0.01
    if cumulative:
        assert (np.abs(controls) == 1.0).any()


def test_an_episode_begins_anew(tmp_path: Path) -> None:
    policy = moving_policy(tmp_path, history=3)
    states, commands = random_states(policy.metadata, 5), random_commands(policy.metadata, 5)
    source = r"""
#include <cstdio>
#include "policy.hpp"
int main() {
    dualfid_policy::Controller controller;
    dualfid_policy::State state{};
    float first[dualfid_policy::kObservations];
    for (int episode = 0; episode < 2; ++episode) {
        state.qpos[0] = 0.5F;
        controller.begin(state);
        if (controller.control()[0] != state.qvel[0]) return 1;
        controller.set_command(0, 1.5F);
        for (int step = 0; step < 4; ++step, state.qpos[0] += 1.0F) {
            controller.act(state);
            for (int i = 0; step == 0 && i < dualfid_policy::kObservations; ++i) {
                if (episode == 1 && first[i] != controller.observation()[i]) return 2;
                first[i] = controller.observation()[i];
            }
        }
        if (controller.observation()[dualfid_policy::kObservations - 2] != 3.0F) return 3;
        if (controller.observation()[dualfid_policy::kObservations - 1] != 1.5F) return 4;
    }
    return 0;
}
"""
    assert run_cpp(source, tmp_path) == 0
    assert check_controller(policy, states, commands) < 2e-6


def test_a_state_of_nan_gives_an_observation_of_nan(tmp_path: Path) -> None:
    policy = moving_policy(tmp_path)
    states = random_states(policy.metadata, 5)
    states.qpos[2, 1] = np.nan
    with CompiledHeader(tmp_path, QUICK) as header:
        observations, controls = header.run(states, random_commands(policy.metadata, 5))
    assert np.isnan(observations[2, 1])
    assert np.isnan(controls[2]).all()
    assert np.isfinite(controls[:2]).all()


def run_cpp(source: str, folder: Path, *flags: str) -> int:
    """Exit status of a program with a folder's header."""
    path = folder / "program.cpp"
    path.write_text(source)
    compile_cpp(path, folder / "program", [*QUICK, *flags, "-I", str(folder)])
    return subprocess.run([folder / "program"], check=False).returncode


def test_nothing_is_allocated_while_it_runs(tmp_path: Path) -> None:
    """malloc itself counts, so that whatever asks for memory is seen; that it would see one is checked too."""
    moving_policy(tmp_path, history=3)
    source = r"""
#include <cstdlib>
#include <memory>
#include "policy.hpp"
extern "C" void* __libc_malloc(std::size_t);
static int allocations = 0;
extern "C" void* malloc(std::size_t size) { ++allocations; return __libc_malloc(size); }
void* operator new(std::size_t size) { ++allocations; return __libc_malloc(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
int main() {
    static dualfid_policy::Controller controller;
    const int before = allocations;
    dualfid_policy::State state{};
    for (int episode = 0; episode < 3; ++episode) {
        controller.begin(state);
        for (int step = 0; step < 10; ++step) {
            state.qpos[0] += controller.act(state)[0];
            controller.set_command(0, 1.0F);
        }
    }
    if (allocations != before) return 1;
    const auto number = std::make_unique<volatile int>(3);
    return allocations == before + 1 && *number == 3 ? 0 : 2;
}
"""
    assert run_cpp(source, tmp_path) == 0


def test_constants_are_those_of_the_metadata(tmp_path: Path) -> None:
    """Numbers to the last digit; texts with quotes, signs of other alphabets and line breaks; None is infinite."""
    awkward = 'a "quoted"\\ name\n, ünicode \U0001f600 ??/ %d'
    joint = meta.Joint("knee", "hinge", 3, 2, (0.1,), None, 1.1, 0.0, 0.0, (0.0, 1.0, 0.0))
    actuators = (
        meta.Actuator(awkward, "knee", "position", 0.1, 85.0, 1 / 3, None, 0.7, 3.3, None, 0.0),
        meta.Actuator("thruster", "", "other", 1.0, 0.0, 0.0, -1.0, None, None, 5.5, 0.0),
    )
    policy = moving_policy(tmp_path, actuators=actuators, joints=(joint,))
    (tmp_path / "expected.txt").write_text(policy.metadata.to_json())
    source = r"""
#include <cstdio>
#include <cstring>
#include <string>
#include "policy.hpp"
using namespace dualfid_policy;
int main() {
    std::string text;
    std::FILE* file = std::fopen("EXPECTED", "rb");
    for (int c; (c = std::fgetc(file)) != EOF;) text += static_cast<char>(c);
    std::fclose(file);
    if (text != kMetadataJson) return 1;
    if (kActions != 2 || kNq != 6 || kNv != 6 || kContactBodies != 1 || kCommands != 1 || kHasDial) return 2;
    if (std::strcmp(kActuatorJoints[0], "knee") != 0 || std::strcmp(kActuatorKinds[1], "other") != 0) return 3;
    if (kQposColumn[0] != 3 || kQvelColumn[0] != 2 || kQposColumn[1] != -1 || kQvelColumn[1] != -1) return 4;
    if (kControlLow[0] != -kInfinity || kControlHigh[0] != 0.7F || kControlHigh[1] != kInfinity) return 5;
    if (kJointLow[0] != -kInfinity || kJointHigh[0] != 1.1F || kJointLow[1] != -kInfinity) return 6;
    if (kKp[0] != 85.0F || kKd[0] != 1.0F / 3.0F || kEffortLimit[0] != 3.3F || kVelocityLimit[1] != 5.5F) return 7;
    if (kVisitedLow[0] != -kInfinity || kVisitedHigh[1] != kInfinity || kVisitedVelocity[0] != 1.0F) return 8;
    if (kControlDt != 0.02 || kEpisodeLength != 100 || kSchemaVersion != 3 || std::strcmp(kTask, "Bare") != 0) return 9;
    if (kCommandLow[0] != -1.0F || kCommandHigh[0] != 2.0F || std::strcmp(kCommandNames[0], "speed") != 0) return 10;
    if (std::strcmp(kActuatorNames[0], "AWKWARD") != 0 || std::strcmp(kRobotName, "bare") != 0) return 11;
    if (kDialLow != 1.0F || kDialHigh != 1.0F) return 12;  // without a dial the adapter acts in full
    return sample_difference() < 2e-6F ? 0 : 13;
}
"""
    quoted = awkward.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("??", "?\\?")
    source = source.replace("AWKWARD", quoted).replace("EXPECTED", str(tmp_path / "expected.txt"))
    assert run_cpp(source, tmp_path) == 0


def test_it_may_stand_in_several_files_of_a_program(tmp_path: Path) -> None:
    moving_policy(tmp_path)
    other = '#include "policy.hpp"\nfloat other();\nfloat other() { return dualfid_policy::sample_difference(); }\n'
    (tmp_path / "other.cpp").write_text(other)
    source = '#include "policy.hpp"\nfloat other();\nint main() { return other() > 1e-5F; }\n'
    assert run_cpp(source, tmp_path, str(tmp_path / "other.cpp")) == 0


@pytest.mark.parametrize(
    "flags", [("-O2",), ("-O3", "-Wconversion", "-Wno-sign-conversion"), ("-fno-exceptions", "-fno-rtti")]
)
def test_it_compiles_without_a_warning(flags: tuple[str, ...], tmp_path: Path) -> None:
    policy = moving_policy(tmp_path, history=3)
    assert "-Werror" in FLAGS
    with CompiledHeader(tmp_path, flags) as header:
        found = header.forward(random_observations(policy.metadata))
    np.testing.assert_allclose(found, policy.action(random_observations(policy.metadata)), atol=2e-6)


def test_fast_math_is_refused(tmp_path: Path) -> None:
    moving_policy(tmp_path)
    with pytest.raises(ConfigError, match="would hide NaNs"):
        CompiledHeader(tmp_path, ("-ffast-math",))


def test_without_a_compiler_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_compiler() is None
    with pytest.raises(ConfigError, match="format=cpp: no C\\+\\+ compiler"):
        CompiledHeader(tmp_path)


def test_each_operator_computes_what_onnxruntime_computes(tmp_path: Path) -> None:
    """The cases of test_program in one header: x is qpos, y is qvel, and k and b are made of contact_wrench."""
    node, nodes, tensors, names = helper.make_node, [], {}, []
    nodes += [
        node("Reshape", ["contact_wrench", "flat"], ["wrench"]),
        node("Cast", ["wrench"], ["k"], to=TensorProto.INT32),
        node("Greater", ["wrench", "zero"], ["b"]),
        node("Identity", ["qpos"], ["x"]),
        node("Identity", ["qvel"], ["y"]),
        node("Slice", ["qvel", "from", "to", "axis"], ["initial_control"]),
    ]
    tensors |= {"flat": np.array([-1, COLUMNS]), "zero": np.array(0, np.float32)}
    tensors |= {name: np.array([value]) for name, value in (("from", 0), ("to", 2), ("axis", 1))}
    reduced = ("ReduceMax", "ReduceMin")  # onnxruntime overlooks NaNs in them
    cases = [case for case in CASES if case.operator not in reduced]
    for i, case in enumerate(cases):
        own, constants = case.nodes(f"o{i}")
        nodes += own
        tensors |= {tensor.name: numpy_helper.to_array(tensor) for tensor in constants}
        nodes += [
            node("Cast", [f"o{i}"], [f"f{i}"], to=TensorProto.FLOAT),
            node("Reshape", [f"f{i}", "row"], [f"r{i}"]),
        ]
        names.append(f"r{i}")
    tensors["row"] = np.array([1, -1])
    nodes.append(node("Concat", names, ["values"], axis=1))
    write_observation(tmp_path / OBSERVATION, nodes, tensors)
    inputs = example_inputs()
    wrench = np.where(inputs["b"], np.abs(inputs["k"]) + 1, -np.abs(inputs["k"])).astype(np.float32)[:, None]
    state = {"qpos": inputs["x"], "qvel": inputs["y"], "contact_wrench": wrench}
    rows = run_rows(onnx.load(tmp_path / OBSERVATION), state)["values"]
    expected = np.concatenate(rows)
    metadata = bare_metadata(COLUMNS, COLUMNS, 1, expected.shape[1], 2)
    write_bare_policy(metadata, "Tanh", tmp_path)
    write_header(metadata, tmp_path)
    with CompiledHeader(tmp_path, QUICK) as header:
        found, _ = header.run(RobotState(state["qpos"], state["qvel"], wrench))
    column = 0
    for case, name in zip(cases, names, strict=True):
        width = run_rows_width(case)
        part = slice(column, column + width)
        np.testing.assert_allclose(found[:, part], expected[:, part], rtol=3e-6, atol=3e-6, err_msg=f"{case} {name}")
        column += width
    assert column == expected.shape[1]
    assert len(found) == ROWS


def run_rows_width(case: Case) -> int:
    """Elements of a case's result for one robot."""
    from test_program import model_of

    return run_rows(model_of([case]), example_inputs())["o0"][0].size


# --- real tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Cartpole", "Ant", "FrankaCabinet", "Anymal"])
def test_the_header_of_a_task_acts_as_the_files_that_it_is_made_of(
    task: str, export_of: ExportOf, tmp_path: Path
) -> None:
    policy = copy_of(export_of(task), tmp_path / "export")
    metadata = policy.metadata
    observations = random_observations(metadata)
    assert check_header(policy.folder, observations, policy.action(observations)) < 1e-5
    states = random_states(metadata)
    states.qpos[:] += np.concatenate([joint.default_position for joint in metadata.joints])
    assert check_controller(policy, states, random_commands(metadata)) < 1e-5
    with CompiledHeader(policy.folder, QUICK) as header:
        found = header.forward(np.array([metadata.sample.observation], np.float32))
    np.testing.assert_allclose(found[0], metadata.sample.action, atol=1e-5)
    assert (policy.folder / HEADER).stat().st_size < 2**21
