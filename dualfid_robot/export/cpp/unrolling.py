"""ONNX graphs for one robot, unrolled into straight-line programs (`program`).

`HANDLERS` has the operators that the tasks' graphs contain, and writing by index. Others are refused by name.
A tensor is a NumPy array. It holds its numbers where they are known now, else the numbers of a program's values. So
operators that only move elements are NumPy's own functions on either. Needs the package onnx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dualfid_robot.errors import ConfigError
from dualfid_robot.export.cpp.program import OPERATORS, Builder, Program

LEAST_OPSET = 18  # from here on all reductions take their axes as an input


@dataclass(frozen=True)
class Symbols:
    """A tensor that depends on inputs: numbers of the program's values, which are of one type."""

    numbers: np.ndarray
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape


Tensor = np.ndarray | Symbols


def unroll(path: Path) -> Program:
    """The program of a graph, whose dimensions of any size become 1.

    Raises:
        ConfigError: an operator that is not known here, or one whose shapes or indices depend on the inputs' values.
    """
    model = onnx.load(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        raise ConfigError(f"format=cpp: {path.name} has opset {opset}; at least {LEAST_OPSET} is needed")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return _Unrolling(path.name, model.graph).run()


class _Refused(Exception):
    """Why a node cannot be unrolled."""


class _Unrolling:
    """One graph on its way to a program.

    Attributes:
        builder: of the program.
        tensors: known so far, by name; an input that is left out is "".
    """

    def __init__(self, file: str, graph: Any) -> None:
        self.file, self.graph = file, graph
        self.builder = Builder()
        self.tensors: dict[str, Tensor | None] = {"": None}

    def run(self) -> Program:
        for initializer in self.graph.initializer:
            self.tensors[initializer.name] = numpy_helper.to_array(initializer)
        for value in self.graph.input:
            if value.name not in self.tensors:
                self.tensors[value.name] = self._input(value)
        for node in self.graph.node:
            self._run_node(node)
        program = self.builder.program
        for output in self.graph.output:
            program.outputs[output.name] = self.lift(self.tensors[output.name]).numbers
        return program

    def _input(self, value: Any) -> Symbols:
        kind = value.type.tensor_type
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        shape = [dimension.dim_value or 1 for dimension in kind.shape.dim]
        numbers = [self.builder.input(value.name, element, dtype) for element in range(math.prod(shape))]
        return Symbols(np.array(numbers, np.int64).reshape(shape), dtype)

    def _run_node(self, node: Any) -> None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = [self.tensors[name] for name in node.input]
        handler = HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if handler is None:
                raise _Refused("is not known here")
            results = handler(self, inputs, attributes, node)
        except _Refused as refusal:
            raise ConfigError(
                f"format=cpp: {self.file}: operator {node.op_type} (node {node.name or node.output[0]}) {refusal}"
            ) from refusal
        results = results if isinstance(results, list) else [results]
        self.tensors.update(zip(node.output, results, strict=False))

    # --- what handlers are made of -----------------------------------------------------------------------------------

    def lift(self, tensor: Tensor | None) -> Symbols:
        """A tensor with its known numbers as constants of the program."""
        assert tensor is not None
        if isinstance(tensor, Symbols):
            return tensor
        numbers = [self.builder.constant(value) for value in tensor.reshape(-1)]
        return Symbols(np.array(numbers, np.int64).reshape(tensor.shape), tensor.dtype)

    def settle(self, numbers: np.ndarray, dtype: np.dtype) -> Tensor:
        """A tensor of values, as known numbers where all are."""
        values = [self.builder.program.values[number] for number in numbers.flat]
        constants = [value.value for value in values if hasattr(value, "value")]
        if len(constants) < len(values):
            return Symbols(numbers, dtype)
        return np.array(constants, dtype).reshape(numbers.shape)

    def apply(self, name: str, *tensors: Tensor | None, dtype: np.dtype | None = None) -> Tensor:
        """An operator on each element, with broadcasting. Its result is of the last argument's type or of `dtype`."""
        lifted = [self.lift(tensor) for tensor in tensors]
        if dtype is None:
            dtype = np.dtype(np.bool_) if name in OPERATORS and OPERATORS[name].logical else lifted[-1].dtype
        arrays = np.broadcast_arrays(*(tensor.numbers for tensor in lifted))
        elements = zip(*(array.reshape(-1) for array in arrays), strict=True)
        numbers = [self.builder.operation(name, [int(number) for number in group], dtype) for group in elements]
        return self.settle(np.array(numbers, np.int64).reshape(arrays[0].shape), dtype)

    def move(self, function: Callable[..., np.ndarray], *tensors: Tensor | None) -> Tensor:
        """What a function that only moves elements makes of the tensors."""
        if all(isinstance(tensor, np.ndarray) for tensor in tensors):
            return np.asarray(function(*tensors))
        lifted = [self.lift(tensor) for tensor in tensors]
        return self.settle(np.asarray(function(*(tensor.numbers for tensor in lifted))), lifted[0].dtype)

    def fold(self, name: str, tensor: Symbols, axes: tuple[int, ...], keep: bool) -> Tensor:
        """Reduce by a binary operator over axes."""
        kept = tuple(axis for axis in range(tensor.numbers.ndim) if axis not in axes)
        moved = tensor.numbers.transpose(*kept, *axes)
        shape = moved.shape[: len(kept)]
        columns = moved.reshape(*shape, math.prod(moved.shape[len(kept) :]))
        if columns.shape[-1] == 0:
            raise _Refused("reduces nothing")
        total: Tensor = Symbols(columns[..., 0], tensor.dtype)
        for column in range(1, columns.shape[-1]):
            total = self.apply(name, total, Symbols(columns[..., column], tensor.dtype))
        return self.move(lambda array: np.expand_dims(array, axes), total) if keep else total


Handler = Callable[[_Unrolling, list[Any], dict[str, Any], Any], Any]
HANDLERS: dict[str, Handler] = {}


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _known(tensor: Tensor | None, what: str) -> np.ndarray:
    if not isinstance(tensor, np.ndarray):
        raise _Refused(f"computes its {what} from the inputs' values")
    return tensor


def _numbers(tensor: Tensor | None, what: str) -> list[int]:
    return [int(number) for number in _known(tensor, what).reshape(-1)]


def _optional(inputs: Sequence[Any], index: int) -> Any:
    return inputs[index] if index < len(inputs) else None


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _elementwise(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    return run.apply(node.op_type, *inputs)


HANDLERS.update(dict.fromkeys(OPERATORS, _elementwise))


@_handles("Max", "Min")
def _extreme(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    result: Tensor = inputs[0]
    for tensor in inputs[1:]:
        result = run.apply(node.op_type, result, tensor)
    return result


@_handles("Clip")
def _clip(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    x, low, high = inputs[0], _optional(inputs, 1), _optional(inputs, 2)
    limits = np.iinfo(x.dtype) if np.issubdtype(x.dtype, np.integer) else np.finfo(x.dtype)
    low, high = (  # a bound that is left out is the greatest finite number
        np.array(limit, x.dtype) if bound is None else bound for bound, limit in ((low, limits.min), (high, limits.max))
    )
    return run.apply("Min", run.apply("Max", x, low), high)


@_handles("Pow")
def _pow(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    base, exponent = inputs
    if isinstance(exponent, np.ndarray) and exponent.ndim <= len(base.shape) and exponent.size == 1 and exponent == 2:
        return run.apply("Mul", base, base)
    exponent = run.apply("Cast", exponent, dtype=base.dtype)
    return run.apply("Pow", base, exponent)


@_handles("Reciprocal")
def _reciprocal(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    return run.apply("Div", np.ones((), inputs[0].dtype), inputs[0])


@_handles("Cast")
def _cast(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    return run.apply("Cast", inputs[0], dtype=np.dtype(helper.tensor_dtype_to_np_dtype(attributes["to"])))


@_handles("MatMul")
def _matmul(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    left, right = (run.lift(tensor) for tensor in inputs)
    a = left.numbers[None, :] if left.numbers.ndim == 1 else left.numbers
    b = right.numbers[:, None] if right.numbers.ndim == 1 else right.numbers
    rows = Symbols(a[..., :, None, :], left.dtype)
    columns = Symbols(b.swapaxes(-1, -2)[..., None, :, :], left.dtype)
    products = run.lift(run.apply("Mul", rows, columns))
    result = run.lift(run.fold("Add", products, (products.numbers.ndim - 1,), keep=False)).numbers
    result = result[..., 0, :] if left.numbers.ndim == 1 else result
    return run.settle(result[..., 0] if right.numbers.ndim == 1 else result, left.dtype)


_REDUCTIONS = {"ReduceSum": "Add", "ReduceL2": "Add", "ReduceMax": "Max"}


@_handles(*_REDUCTIONS)
def _reduce(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    tensor = inputs[0]
    axes_input = _optional(inputs, 1)
    axes = [] if axes_input is None else _numbers(axes_input, "axes")
    if not axes and attributes.get("noop_with_empty_axes", 0):
        return tensor
    rank = len(tensor.shape)
    reduced = tuple(sorted(axis % rank for axis in axes)) or tuple(range(rank))
    if node.op_type == "ReduceL2":
        tensor = run.apply("Mul", tensor, tensor)
    total = run.fold(_REDUCTIONS[node.op_type], run.lift(tensor), reduced, bool(attributes.get("keepdims", 1)))
    return run.apply("Sqrt", total) if node.op_type == "ReduceL2" else total


@_handles("CumSum")
def _cumulative_sum(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    tensor = inputs[0]
    axis = _numbers(inputs[1], "axis")[0] % len(tensor.shape)
    order = range(tensor.shape[axis])[:: -1 if attributes.get("reverse", 0) else 1]
    parts: list[Tensor] = [
        run.move(lambda array, place=place: np.take(array, [place], axis), tensor) for place in order
    ]
    # an exclusive sum at a place is the inclusive one at the place before
    if attributes.get("exclusive", 0):
        parts = [*(np.zeros(part.shape, tensor.dtype) for part in parts[:1]), *parts[:-1]]
    sums = parts[:1]
    for part in parts[1:]:
        sums.append(run.apply("Add", sums[-1], part))
    return run.move(lambda *arrays: np.concatenate(arrays, axis), *(sums[place] for place in order))


# --- shapes -----------------------------------------------------------------------------------------------------------


@_handles("Identity")
def _identity(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    result: Tensor = inputs[0]
    return result


@_handles("ConstantOfShape")
def _constant_of_shape(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    value = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return np.full(_numbers(inputs[0], "shape"), value.reshape(-1)[0])


@_handles("Shape")
def _shape(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    shape = inputs[0].shape[attributes.get("start", 0) :]
    end = attributes.get("end")
    return np.array(inputs[0].shape[attributes.get("start", 0) : end] if end is not None else shape, np.int64)


@_handles("Range")
def _range(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    start, limit, step = (_known(tensor, "bounds") for tensor in inputs)
    return np.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


@_handles("Reshape")
def _reshape(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    sizes = _numbers(inputs[1], "shape")
    if not attributes.get("allowzero", 0):
        sizes = [inputs[0].shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return run.move(lambda array: array.reshape(sizes), inputs[0])


@_handles("Squeeze")
def _squeeze(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    axes_input = _optional(inputs, 1)
    axes = None if axes_input is None else tuple(_numbers(axes_input, "axes"))
    return run.move(lambda array: np.squeeze(array, axes), inputs[0])


@_handles("Unsqueeze")
def _unsqueeze(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    return run.move(lambda array: np.expand_dims(array, tuple(_numbers(inputs[1], "axes"))), inputs[0])


@_handles("Transpose")
def _transpose(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    return run.move(lambda array: np.transpose(array, attributes.get("perm")), inputs[0])


@_handles("Expand")
def _expand(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(_numbers(inputs[1], "shape")))
    return run.move(lambda array: np.broadcast_to(array, shape), inputs[0])


@_handles("Concat")
def _concat(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    return run.move(lambda *arrays: np.concatenate(arrays, attributes["axis"]), *inputs)


@_handles("Split")
def _split(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> list[Tensor]:
    axis = attributes.get("axis", 0)
    size, parts = inputs[0].shape[axis], len(node.output)
    chosen = _optional(inputs, 1)
    sizes = [-(-size // parts)] * (parts - 1) if chosen is None else _numbers(chosen, "sizes")[:-1]
    cuts = [0, *np.cumsum(sizes).tolist(), size]
    return [run.move(lambda array, a=a, b=b: np.take(array, range(a, b), axis), inputs[0]) for a, b in pairwise(cuts)]


@_handles("Slice")
def _slice(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    starts, ends = _numbers(inputs[1], "starts"), _numbers(inputs[2], "ends")
    axes_input, steps_input = _optional(inputs, 3), _optional(inputs, 4)
    axes = list(range(len(starts))) if axes_input is None else _numbers(axes_input, "axes")
    steps = [1] * len(starts) if steps_input is None else _numbers(steps_input, "steps")
    shape = inputs[0].shape
    places = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0 and end < -shape[axis]:  # ONNX: past the first element; Python would count from the end again
            places[axis] = slice(start, None, step)
        else:
            places[axis] = slice(start, end, step)
    return run.move(lambda array: array[tuple(places)], inputs[0])


# --- places -----------------------------------------------------------------------------------------------------------


@_handles("Gather")
def _gather(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    data, indices = inputs
    axis = attributes.get("axis", 0) % len(data.shape)
    if isinstance(indices, np.ndarray):
        return run.move(lambda array: np.take(array, indices, axis), data)
    table = _known(data, "data and indices")
    moved = np.moveaxis(np.arange(table.size).reshape(table.shape), axis, -1)  # flat places, the axis last
    before, after = table.shape[:axis], table.shape[axis + 1 :]
    stride = int(math.prod(after))
    numbers = [
        run.builder.lookup(table.reshape(-1), [int(index)], [table.shape[axis]], [stride], int(place))
        for index in indices.numbers.flat
        for place in moved[..., 0].flat
    ]
    array = np.array(numbers, np.int64).reshape(*indices.shape, *before, *after)
    rank = indices.numbers.ndim
    order = (*range(rank, rank + axis), *range(rank), *range(rank + axis, array.ndim))
    return Symbols(array.transpose(order), table.dtype)


@_handles("GatherND")
def _gather_nd(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    data, indices = inputs
    if attributes.get("batch_dims", 0):
        raise _Refused("has batch_dims")
    depth = indices.shape[-1]
    if isinstance(indices, np.ndarray):
        return run.move(lambda array: array[tuple(np.moveaxis(indices, -1, 0))], data)
    table = _known(data, "data and indices")
    rest = table.shape[depth:]
    strides = [math.prod(table.shape[i + 1 :]) for i in range(depth)]
    numbers = [
        run.builder.lookup(table.reshape(-1), [int(index) for index in group], table.shape[:depth], strides, offset)
        for group in indices.numbers.reshape(-1, depth)
        for offset in range(math.prod(rest))
    ]
    return Symbols(np.array(numbers, np.int64).reshape(*indices.shape[:-1], *rest), table.dtype)


@_handles("ScatterND")
def _scatter_nd(run: _Unrolling, inputs: list[Any], attributes: dict[str, Any], node: Any) -> Tensor:
    if attributes.get("reduction", b"none") != b"none":
        raise _Refused("adds up what it scatters")
    places = tuple(np.moveaxis(_known(inputs[1], "indices"), -1, 0))

    def write(array: np.ndarray, updates: np.ndarray) -> np.ndarray:
        result = array.copy()
        result[places] = updates
        return result

    return run.move(write, inputs[0], inputs[2])
