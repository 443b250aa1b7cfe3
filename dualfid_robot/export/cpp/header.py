"""`policy.hpp`: an exported policy as one C++17 header without dependencies. Writing it needs the package onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import accumulate
from pathlib import Path

import numpy as np

from dualfid_robot.export.cpp import literals as cpp
from dualfid_robot.export.cpp.network_code import LANES, network_code
from dualfid_robot.export.cpp.program import CPP_TYPES, OPERATORS, Constant, Input, Lookup, Program, Value
from dualfid_robot.export.cpp.unrolling import unroll
from dualfid_robot.onboard.metadata import Dial, Joint, Metadata
from dualfid_robot.onboard.runtime import MEMORY_INPUT, MEMORY_OUTPUT, OBSERVATION, POLICY

HEADER = "policy.hpp"

_PALETTE_TYPES = {"std::uint8_t": 2**8, "std::uint16_t": 2**16}


def write_header(metadata: Metadata, folder: Path) -> Path:
    """Write `policy.hpp` from the `policy.onnx` and `observation.onnx` of a folder, and return its path.

    Args:
        metadata: what it says about itself.

    Raises:
        ConfigError: a graph has an operator that is not known here.
    """
    program = unroll(folder / OBSERVATION)
    network = network_code(folder / POLICY)
    memory = _memory_offsets(metadata)
    inputs = _input_names(memory)
    moving = [name for name in memory if MEMORY_OUTPUT + name in program.outputs]
    targets = {"values": "values[{}]"}
    targets |= {MEMORY_OUTPUT + name: f"memory_[{memory[name]} + {{}}]" for name in moving}
    fields = {
        "TASK": metadata.task,
        "VERSION": metadata.package.version,
        "CONSTANTS": "\n".join(_constants(metadata, memory)),
        "LANES": str(LANES),
        "TABLES": "\n\n".join(_table(number, values) for number, values in enumerate(program.tables)),
        "NETWORK_CONSTANTS": "\n\n".join(network.constants),
        "NETWORK": _indented(network.body, 4),
        "VALUES": str(sum(term.dim for term in metadata.observation)),
        "MEMORY": str(sum(entry.columns for entry in metadata.memory)),
        "START": _indented(program_code(program, {"initial_control": "control_[{}]"}, inputs), 8),
        "OBSERVE": _indented(program_code(program, targets, inputs), 8),
    }
    template = resources.files("dualfid_robot.export.cpp").joinpath("policy.hpp.in").read_text("utf-8")
    for name, value in fields.items():
        template = template.replace(f"@{name}@", value)
    path = folder / HEADER
    path.write_text(template, encoding="utf-8")
    return path


def program_code(program: Program, targets: Mapping[str, str], inputs: Mapping[str, str]) -> list[str]:
    """C++ statements that compute outputs of a program.

    Args:
        targets: lvalue of element {} of each output that is wanted.
        inputs: expression of element {} of each input.
    """
    values = program.values
    names = {number: f"v{number}" for number in program.needed(list(targets))}
    for number in names:
        value = values[number]
        if isinstance(value, Constant):
            names[number] = cpp.number(value.value)
    lines = []
    for number, name in names.items():
        value = values[number]
        if not isinstance(value, Constant):
            lines.append(f"const {CPP_TYPES[value.dtype]} {name} = {_expression(value, names, values, inputs)};")
    for output, target in targets.items():
        lines += [f"{target.format(i)} = {names[int(n)]};" for i, n in enumerate(program.outputs[output].flat)]
    return lines


def _expression(
    value: Input | Lookup | Value, names: Mapping[int, str], values: Sequence[Value], inputs: Mapping[str, str]
) -> str:
    if isinstance(value, Input):
        return inputs[value.name].format(value.element)
    assert not isinstance(value, Constant)
    arguments = [names[argument] for argument in value.arguments]
    kind = CPP_TYPES[value.dtype]
    if isinstance(value, Lookup):
        places = zip(arguments, value.sizes, value.strides, strict=True)
        place = " + ".join([*(f"place({i}, {size}, {stride})" for i, size, stride in places), str(value.offset)])
        return f"table{value.table}({place})"
    if value.name == "Cast":
        return f"cast<{kind}>({arguments[0]})"
    return OPERATORS[value.name].cpp.format(*arguments)


def _table(number: int, values: np.ndarray) -> str:
    """A table and its function: the values themselves, or their places among the distinct ones where that is less."""
    kind = CPP_TYPES[values.dtype]
    distinct, places = np.unique(values, return_inverse=True)
    index = next((name for name, count in _PALETTE_TYPES.items() if len(distinct) <= count < len(values)), None)
    name = f"kTable{number}"
    found = f"{name}[index]" if index is None else f"{name}Values[{name}[index]]"
    arrays = (
        [cpp.array(kind, name, [cpp.number(value) for value in values])]
        if index is None
        else [
            cpp.array(kind, f"{name}Values", [cpp.number(value) for value in distinct]),
            cpp.array(index, name, [str(place) for place in places.tolist()]),
        ]
    )
    function = (
        f"inline {kind} table{number}(std::int64_t index) {{\n    return index < 0 ? missing<{kind}>() : {found};\n}}"
    )
    return "\n".join([*arrays, function])


def _memory_offsets(metadata: Metadata) -> dict[str, int]:
    """First column of each entry in the controller's memory."""
    ends = accumulate((entry.columns for entry in metadata.memory), initial=0)
    return {entry.name: start for entry, start in zip(metadata.memory, ends, strict=False)}


def _input_names(memory: Mapping[str, int]) -> dict[str, str]:
    names = {name: f"state.{name}[{{}}]" for name in ("qpos", "qvel", "contact_wrench")}
    names |= {"action": "action_[{}]", "control": "control_[{}]", "step": "step_", "first": "first_"}
    return names | {MEMORY_INPUT + name: f"memory_[{start} + {{}}]" for name, start in memory.items()}


def _indented(lines: Sequence[str], spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in lines)


def _constants(metadata: Metadata, memory: Mapping[str, int]) -> list[str]:
    """Definitions of what the metadata says, as far as a robot's loop needs it."""
    robot, policy, timing, action = metadata.robot, metadata.policy, metadata.timing, metadata.action
    actuators, commands, visited, terms = metadata.actuators, metadata.commands, metadata.visited, metadata.observation
    dial = policy.dial or Dial(1.0, 1.0, 1.0)
    joints = {joint.name: joint for joint in metadata.joints}
    driven: list[Joint | None] = [joints.get(actuator.joint) for actuator in actuators]
    integers = {
        "kSchemaVersion": metadata.schema_version,
        "kNq": robot.nq,
        "kNv": robot.nv,
        "kContactBodies": len(robot.contact_bodies),
        "kActions": policy.act_dim,
        "kObservations": policy.obs_dim,
        "kCommands": len(commands),
        "kEpisodeLength": metadata.episode_length,
        "kTerms": len(terms),
    }
    integer_arrays = {
        "kQposColumn": [-1 if joint is None else joint.qpos for joint in driven],
        "kQvelColumn": [-1 if joint is None else joint.qvel for joint in driven],
        "kCommandMemory": [memory[command.memory] + command.column for command in commands],
        "kTermDim": [term.dim for term in terms],
        "kTermHistory": [term.history for term in terms],
    }
    texts: dict[str, Sequence[str]] = {
        "kActuatorNames": [actuator.name for actuator in actuators],
        "kActuatorJoints": [actuator.joint for actuator in actuators],
        "kActuatorKinds": [actuator.kind for actuator in actuators],
        "kJointNames": list(joints),
        "kContactBodyNames": list(robot.contact_bodies),
        "kCommandNames": [command.name for command in commands],
    }
    least = -np.inf
    floats = [
        cpp.float_array("kControlLow", [actuator.control_low for actuator in actuators], least),
        cpp.float_array("kControlHigh", [actuator.control_high for actuator in actuators]),
        cpp.float_array("kEffortLimit", [actuator.effort_limit for actuator in actuators]),
        cpp.float_array("kVelocityLimit", [actuator.velocity_limit for actuator in actuators]),
        cpp.float_array("kJointLow", [None if joint is None else joint.low for joint in driven], least),
        cpp.float_array("kJointHigh", [None if joint is None else joint.high for joint in driven]),
        cpp.float_array("kGear", [actuator.gear for actuator in actuators]),
        cpp.float_array("kKp", [actuator.kp for actuator in actuators]),
        cpp.float_array("kKd", [actuator.kd for actuator in actuators]),
        cpp.float_array("kVisitedLow", visited.position_low, least),
        cpp.float_array("kVisitedHigh", visited.position_high),
        cpp.float_array("kVisitedVelocity", visited.velocity),
        cpp.float_array("kActionScale", action.scale),
        cpp.float_array("kActionOffset", action.offset),
        cpp.float_array("kCommandLow", [command.low for command in commands], least),
        cpp.float_array("kCommandHigh", [command.high for command in commands]),
        cpp.float_array("kSampleObservation", metadata.sample.observation),
        cpp.float_array("kSampleAction", metadata.sample.action),
    ]
    return [
        *(f"inline constexpr int {name} = {value};" for name, value in integers.items()),
        f"inline constexpr const char kTask[] = {cpp.text(metadata.task)};",
        f"inline constexpr const char kRobotName[] = {cpp.text(robot.name)};",
        f"inline constexpr double kControlDt = {cpp.number(np.float64(timing.control_dt))};  // s",
        f"inline constexpr bool kHasDial = {cpp.number(policy.dial is not None)};",
        f"inline constexpr float kDialLow = {cpp.number(np.float32(dial.low))};",
        f"inline constexpr float kDialHigh = {cpp.number(np.float32(dial.high))};",
        f"inline constexpr bool kActionCumulative = {cpp.number(action.cumulative)};",
        f"inline constexpr float kActionClip = {cpp.number(np.float32(action.clip))};",
        *(cpp.text_array(name, values) for name, values in texts.items()),
        *(cpp.array("int", name, [str(value) for value in values] or ["0"]) for name, values in integer_arrays.items()),
        *floats,
        f"inline constexpr const char kMetadataJson[] =\n{cpp.text(metadata.to_json())};",
    ]
