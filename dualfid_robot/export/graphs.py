"""A task's own functions as ONNX graphs, so that a robot and a player need neither the task nor PyTorch.

`observation.onnx` and `episode.onnx` (docs/policy_format.md) are traced from `Task.observe`, `advance`, `reward` and so
on, for any number of robots. What is not traced is how episodes begin, since that is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode

from dualfid_robot.envs.reward import add_up
from dualfid_robot.envs.task import State, Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.networks import onnx_model, quiet, write_model
from dualfid_robot.onboard.runtime import (
    EPISODE,
    MEASURE_OUTPUT,
    MEMORY_INPUT,
    MEMORY_OUTPUT,
    OBSERVATION,
    REWARD_OUTPUT,
)

_ROWS = 3  # of the traced example; any number that is neither 0 nor 1, which PyTorch takes for constants

_N = torch.export.Dim("n")

Graph = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def write_graphs(task: Task, folder: Path) -> None:
    """Write `observation.onnx` and `episode.onnx`.

    The observation is that of the memory that `advance` leaves behind. This is what a pool shows, by the contract of
    `Task.advance`. An input on which no output depends is left out of its graph.

    Args:
        task: on the CPU.
        folder: where they go; files of these names are replaced.

    Raises:
        ConfigError: the task's functions cannot be traced, or change what they may only look at. It is also raised when
            they draw random numbers for anything but a command.
    """
    advanced = _advanced(task)

    def observation(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        state, first = _state(task, inputs), inputs["first"][:, None]
        if advanced:
            after = _state(task, {name: values.clone() for name, values in inputs.items()})
            _advance(task, after)
            state.memory |= {name: torch.where(first, state.memory[name], after.memory[name]) for name in advanced}
        return {
            "values": task.newest_values(task.observe(state)),
            "initial_control": task.initial_control(state.qpos),
            **{MEMORY_OUTPUT + name: state.memory[name] for name in advanced},
        }

    def episode(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        state = _state(task, inputs)
        observed = task.observe(state)
        terminated = task.terminated(state, observed)
        terms = task.reward(inputs["previous_qpos"], state, observed, terminated)
        measures = task.measure(state, observed)
        return {
            "reward": add_up(terms.values()),
            "terminated": terminated,
            **{REWARD_OUTPUT + name: values.clone() for name, values in terms.items()},
            **{MEASURE_OUTPUT + name: values.float() for name, values in measures.items()},
        }

    inputs = _inputs(task)
    _write(task, observation, inputs | {"first": torch.ones(_ROWS, dtype=torch.bool)}, folder / OBSERVATION)
    _write(task, episode, inputs | {"previous_qpos": torch.zeros_like(inputs["qpos"])}, folder / EPISODE)


def _inputs(task: Task) -> dict[str, Tensor]:
    """What both graphs look at, as an example. Contact wrenches of no bodies are left out."""
    model, bodies = task.robot.model, len(task.contact_bodies)
    columns = {"qpos": (model.nq,), "qvel": (model.nv,)} | ({"contact_wrench": (bodies, 6)} if bodies else {})
    columns |= {"action": (task.num_actions,), "control": (task.num_actions,)}
    inputs = {name: torch.zeros(_ROWS, *shape) for name, shape in columns.items()}
    inputs["qpos"] += torch.from_numpy(model.qpos0)
    inputs["step"] = torch.zeros(_ROWS, dtype=torch.int32)
    return inputs | {MEMORY_INPUT + name: torch.zeros(_ROWS, size) for name, size in task.memory.items()}


def _state(task: Task, inputs: dict[str, Tensor]) -> State:
    qpos = inputs["qpos"]
    wrench = inputs["contact_wrench"] if task.contact_bodies else qpos.new_zeros(qpos.shape[0], 0, 6)
    memory = {name: inputs[MEMORY_INPUT + name] for name in task.memory}
    return State(qpos, inputs["qvel"], wrench, inputs["action"], inputs["control"], inputs["step"], memory)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square()).sqrt()


def _slice_scatter(
    x: Tensor, part: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    size = x.shape[dim]
    if step != 1 or not isinstance(size, int):
        return NotImplemented
    first, last, _ = slice(start, end).indices(size)
    return torch.cat((x.narrow(dim, 0, first), part, x.narrow(dim, last, size - last)), dim)


def _select_scatter(x: Tensor, part: Tensor, dim: int, index: int) -> Tensor:
    return _slice_scatter(x, part.unsqueeze(dim), dim, index, index + 1 or None)


# ONNX has no hypot, and would write into a part of a tensor (`x[:, 3] += y`) by way of an index for every number.
_DECOMPOSITIONS = {
    torch.ops.aten.hypot.default: _hypot,
    torch.ops.aten.slice_scatter.default: _slice_scatter,
    torch.ops.aten.select_scatter.default: _select_scatter,
}


class _Untied(TorchFunctionMode):
    """Random numbers do not come from the generator that was asked for: PyTorch traces none but its own."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = {key: value for key, value in (kwargs or {}).items() if not isinstance(value, torch.Generator)}
        return func(*args, **kwargs)


def _advance(task: Task, state: State) -> None:
    with _Untied():
        task.advance(state, task.observe(state), torch.Generator())


def _advanced(task: Task) -> list[str]:
    """Names of the memory that `advance` moves on. An entry for which it draws is its operator's, and stands still."""
    if type(task).advance is Task.advance:
        return []

    def advance(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        _advance(task, _state(task, inputs))
        return {}

    inputs = _inputs(task)
    program, _ = _trace(task, advance, inputs)
    names, drawn = _changed(program, inputs), _drawn(program)
    others = [name for name in names.values() if not name.startswith(MEMORY_INPUT)]
    _refuse(task, others, "advance may change memory alone; it changes")
    memory = {output: name.removeprefix(MEMORY_INPUT) for output, name in names.items()}
    commands = {command.memory for command in task.commands}
    random = [name for output, name in memory.items() if output in drawn and name not in commands]
    _refuse(task, random, "only commands may be drawn while an episode runs; advance draws memory")
    moved = {name for output, name in memory.items() if output not in drawn}
    return [name for name in task.memory if name in moved]


def _refuse(task: Task, names: list[str], what: str) -> None:
    if names:
        raise ConfigError(f"task={type(task).__name__}: {what} {', '.join(names)}")


def _trace(task: Task, graph: Graph, inputs: dict[str, Tensor]) -> tuple[ExportedProgram, list[str]]:
    """The graph as one of pure functions, for any number of rows, and the names of its outputs."""

    class Traced(nn.Module):
        def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            return graph(inputs)

    shapes = ({name: {0: _N} for name in inputs},)
    with torch.random.fork_rng(devices=[]):
        outputs = graph({name: values.clone() for name, values in inputs.items()})  # so that no task caches a trace
    with _refusal(task):
        try:
            program = torch.export.export(Traced(), (inputs,), dynamic_shapes=shapes)
        except Exception as error:  # PyTorch's second way takes longer, and knows len(x) as a number that varies
            try:
                program = torch.export.export(Traced(), (inputs,), dynamic_shapes=shapes, strict=True)
            except Exception:
                raise error from error.__cause__
        program = program.run_decompositions(_DECOMPOSITIONS)
    return program, list(outputs)


@contextmanager
def _refusal(task: Task) -> Iterator[None]:
    """One line for whatever PyTorch says, whose exceptions have no base of their own, and none besides."""
    try:
        with quiet(), redirect_stderr(io.StringIO()):
            yield
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        reason = " ".join(str(root).split())[:200]
        raise ConfigError(
            f"task={type(task).__name__}: its functions cannot be traced ({type(root).__name__}: {reason}); they take "
            "sizes from x.shape, decide by torch.where, not by if, and compute with torch alone"
        ) from error


def _changed(program: ExportedProgram, inputs: dict[str, Tensor]) -> dict[str, str]:
    """Which inputs a graph changes in place, by the node of their new value."""
    signature = program.graph_signature
    names = dict(zip(signature.user_inputs, inputs, strict=True))
    return {output: names[changed] for output, changed in signature.user_inputs_to_mutate.items()}


def _drawn(program: ExportedProgram) -> set[str]:
    """The nodes that depend on random numbers."""
    drawn = set()
    for node in program.graph.nodes:
        tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
        if torch.Tag.nondeterministic_seeded in tags or any(source.name in drawn for source in node.all_input_nodes):
            drawn.add(node.name)
    return drawn


def _write(task: Task, graph: Graph, inputs: dict[str, Tensor], path: Path) -> None:
    program, names = _trace(task, graph, inputs)
    drawn, nodes = _drawn(program), program.graph_signature.user_outputs
    random = [name for name, node in zip(names, nodes, strict=True) if node in drawn]
    _refuse(task, random, "only commands may be drawn while an episode runs; random numbers are in")
    changed = list(_changed(program, inputs).values())
    _refuse(task, changed, "only `advance` may change a state, and only its memory; changed in place:")
    with _refusal(task):
        model = onnx_model(program, (inputs,), {name: {0: _N} for name in inputs}, names, path.name)
    _drop_unused_inputs(model.graph)
    write_model(model, path)


def _drop_unused_inputs(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for unused in [value for value in graph.input if value.name not in used]:
        graph.input.remove(unused)
