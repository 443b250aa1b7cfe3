"""Straight-line programs of scalar operations, into which an ONNX graph for one robot unrolls.

By then nothing is left that only moves elements about (slices, shapes, concatenations). What is left is arithmetic,
which `header` prints as C++. Equal operations are shared, and those of constants alone are computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CPP_TYPES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.uint8): "std::uint8_t",
    np.dtype(np.int32): "std::int32_t",
    np.dtype(np.int64): "std::int64_t",
    np.dtype(np.bool_): "bool",
}


@dataclass(frozen=True)
class Operator:
    """How an operation is computed, here and in C++.

    Attributes:
        function: of NumPy arrays.
        cpp: expression of {0}, {1}, … and of the result's {type}.
        logical: the result is a bool, whatever the arguments are.
    """

    function: Callable[..., Any]
    cpp: str
    logical: bool = False


def _divide(x: Any, y: Any) -> Any:
    """ONNX's division: of integers towards zero."""
    if np.issubdtype(np.result_type(x), np.floating):
        return np.divide(x, y)
    return np.sign(x) * np.sign(y) * np.floor_divide(np.abs(x), np.abs(y))


def _call(name: str) -> str:
    return f"std::{name}({{0}})"


OPERATORS = {
    "Add": Operator(np.add, "{0} + {1}"),
    "Sub": Operator(np.subtract, "{0} - {1}"),
    "Mul": Operator(np.multiply, "{0} * {1}"),
    "Div": Operator(_divide, "divide({0}, {1})"),
    "Pow": Operator(np.power, "std::pow({0}, {1})"),
    "Max": Operator(np.maximum, "greater({0}, {1})"),
    "Min": Operator(np.minimum, "lesser({0}, {1})"),
    "Neg": Operator(np.negative, "-{0}"),
    "Abs": Operator(np.abs, _call("abs")),
    "Sqrt": Operator(np.sqrt, _call("sqrt")),
    "Exp": Operator(np.exp, _call("exp")),
    "Sin": Operator(np.sin, _call("sin")),
    "Cos": Operator(np.cos, _call("cos")),
    "Atan": Operator(np.arctan, _call("atan")),
    "Floor": Operator(np.floor, _call("floor")),
    "Round": Operator(np.rint, _call("nearbyint")),
    "Less": Operator(np.less, "{0} < {1}", logical=True),
    "LessOrEqual": Operator(np.less_equal, "{0} <= {1}", logical=True),
    "Greater": Operator(np.greater, "{0} > {1}", logical=True),
    "And": Operator(np.logical_and, "{0} && {1}", logical=True),
    "Or": Operator(np.logical_or, "{0} || {1}", logical=True),
    "IsNaN": Operator(np.isnan, _call("isnan"), logical=True),
    "Where": Operator(np.where, "{0} ? {1} : {2}"),
}
"""By the names of ONNX. NaN goes through all but comparisons."""


@dataclass(frozen=True)
class Constant:
    """A number that is known now."""

    value: np.generic

    @property
    def dtype(self) -> np.dtype:
        return self.value.dtype


@dataclass(frozen=True)
class Input:
    """One element of an input, counted flat."""

    name: str
    element: int
    dtype: np.dtype


@dataclass(frozen=True)
class Operation:
    """A result of `OPERATORS[name]`, or of "Cast".

    Attributes:
        arguments: numbers of the values that it takes.
    """

    name: str
    arguments: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Lookup:
    """table[offset + Σ strideᵢ · indexᵢ], NaN (0 in a table of integers) where an index is out of its range.

    Attributes:
        table: which one of the program's.
        arguments: numbers of the values that are the indices, which count from the end where they are negative.
        sizes, strides: of the indices.
    """

    table: int
    arguments: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: np.dtype


Value = Constant | Input | Operation | Lookup


@dataclass
class Program:
    """Values, each computed from ones before it.

    Attributes:
        values: in order.
        tables: constants in which `Lookup` looks, flat.
        outputs: array of numbers of values, for each output.
    """

    values: list[Value] = field(default_factory=list)
    tables: list[np.ndarray] = field(default_factory=list)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)

    def needed(self, outputs: Sequence[str]) -> list[int]:
        """Numbers of the values that some of the outputs depend on, in order."""
        pending = [int(number) for name in outputs for number in self.outputs[name].flat]
        seen = set(pending)
        while pending:
            new = [number for number in arguments_of(self.values[pending.pop()]) if number not in seen]
            seen.update(new)
            pending += new
        return sorted(seen)

    def sources(self, output: str) -> list[set[tuple[str, int]]]:
        """For each element of an output, in flat order, the elements (input, column) that it depends on."""
        known: dict[int, set[tuple[str, int]]] = {}
        for number in self.needed([output]):
            value = self.values[number]
            own = {(value.name, value.element)} if isinstance(value, Input) else set()
            known[number] = own.union(*(known[argument] for argument in arguments_of(value)))
        return [known[int(number)] for number in self.outputs[output].flat]

    def evaluate(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs, flat (n, elements), of n robots' inputs (n, ·): what the C++ has to compute."""
        rows = len(next(iter(inputs.values())))
        results: dict[int, np.ndarray] = {}
        with np.errstate(all="ignore"):
            for number in self.needed(list(self.outputs)):
                value = self.values[number]
                arguments = [results[argument] for argument in arguments_of(value)]
                if isinstance(value, Constant):
                    results[number] = np.full(rows, value.value)
                elif isinstance(value, Input):
                    results[number] = inputs[value.name].reshape(rows, -1)[:, value.element]
                elif isinstance(value, Lookup):
                    results[number] = _look_up(self.tables[value.table], value, arguments)
                else:
                    results[number] = compute(value.name, arguments, value.dtype)
        return {
            name: np.stack([results[int(number)] for number in numbers.flat], 1)
            for name, numbers in self.outputs.items()
        }


def arguments_of(value: Value) -> tuple[int, ...]:
    """Numbers of the values that a value is computed from."""
    return value.arguments if isinstance(value, Operation | Lookup) else ()


def compute(name: str, arguments: Sequence[Any], dtype: np.dtype) -> Any:
    """An operation on NumPy arrays of the same shape."""
    if name != "Cast":
        return np.asarray(OPERATORS[name].function(*arguments)).astype(dtype)
    (x,) = arguments
    if np.issubdtype(dtype, np.integer) and np.issubdtype(x.dtype, np.floating):
        limits = np.iinfo(dtype)
        inside = (x >= float(limits.min)) & (x < -float(limits.min))  # else undefined; the C++ gives the least one
        return np.where(inside, x, 0).astype(dtype) + np.where(inside, 0, limits.min).astype(dtype)
    return x.astype(dtype)


def _look_up(table: np.ndarray, lookup: Lookup, indices: Sequence[np.ndarray]) -> np.ndarray:
    place, valid = np.array(lookup.offset), np.array(True)
    for index, size, stride in zip(indices, lookup.sizes, lookup.strides, strict=True):
        valid = valid & (index >= -size) & (index < size)
        place = place + np.where(index < 0, index + size, index) * stride
    missing = np.nan if np.issubdtype(table.dtype, np.floating) else 0
    return np.where(valid, table[np.where(valid, place, 0)], missing).astype(table.dtype)


class Builder:
    """Adds values to a program: each one once, constants folded.

    Attributes:
        program: as it is so far.
    """

    def __init__(self) -> None:
        self.program = Program()
        self._numbers: dict[Any, int] = {}

    def constant(self, value: np.generic) -> int:
        """The number of a constant."""
        return self._number(("constant", value.dtype, value.tobytes()), Constant(value))

    def input(self, name: str, element: int, dtype: np.dtype) -> int:
        """The number of an input's element."""
        value = Input(name, element, dtype)
        return self._number(value, value)

    def operation(self, name: str, arguments: Sequence[int], dtype: np.dtype) -> int:
        """The number of an operation's result."""
        values = [self.program.values[argument] for argument in arguments]
        if name == "Where" and isinstance(values[0], Constant):
            return arguments[1] if values[0].value else arguments[2]
        if name == "Cast" and values[0].dtype == dtype:
            return arguments[0]
        if name == "Mul":
            for one, other in ((0, 1), (1, 0)):
                value = values[one]
                if isinstance(value, Constant) and value.value == 1:
                    return arguments[other]
        if all(isinstance(value, Constant) for value in values):
            with np.errstate(all="ignore"):
                known = [np.asarray(value.value) for value in values if isinstance(value, Constant)]
                return self.constant(np.asarray(compute(name, known, dtype)).reshape(-1)[0])
        operation = Operation(name, tuple(arguments), dtype)
        return self._number(operation, operation)

    def lookup(
        self, table: np.ndarray, arguments: Sequence[int], sizes: Sequence[int], strides: Sequence[int], offset: int
    ) -> int:
        """The number of an element of a (flat) table at computed indices."""
        tables = self.program.tables
        equal = (i for i, known in enumerate(tables) if known.dtype == table.dtype and np.array_equal(known, table))
        number = next(equal, len(tables))
        if number == len(tables):
            tables.append(table)
        value = Lookup(number, tuple(arguments), tuple(sizes), tuple(strides), offset, table.dtype)
        return self._number(value, value)

    def _number(self, key: Any, value: Value) -> int:
        number = self._numbers.setdefault(key, len(self.program.values))
        if number == len(self.program.values):
            self.program.values.append(value)
        return number
