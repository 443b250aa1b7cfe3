"""A policy's network as C++: policy.onnx itself, translated node by node. Needs the package onnx."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dualfid_robot.errors import ConfigError
from dualfid_robot.export.cpp import literals as cpp

LANES = 32
"""Rows of a matrix that are summed at once. Of 8, 16, 32 and 64 the one that g++ 12 turns into the fastest code at most
of -O2 and -O3 with and without the machine's own instructions (benchmarks/policy_header.py)."""

_BINARY = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/"}
_ACTIVATIONS = {"Tanh": "tanh_of({x})", "Relu": "relu({x})", "Elu": "elu({x}, {alpha})", "Neg": "-{x}"}


@dataclass
class NetworkCode:
    """C++ of a network.

    Attributes:
        constants: definitions of its weights.
        body: of the function that takes `observation` and `dial` and fills `action`.
    """

    constants: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)


def network_code(path: Path) -> NetworkCode:
    """Translate a network of affine layers, elementwise functions and constants.

    Args:
        path: of the ONNX file, with the inputs `observation` (n, ·) and perhaps `dial` (1,), and the output `action`.

    Raises:
        ConfigError: an operator that is not known here.
    """
    return _Translation(path).run()


@dataclass(frozen=True)
class _Vector:
    """Numbers while the network runs: a C++ array, or a single float."""

    name: str
    size: int
    single: bool = False

    def element(self) -> str:
        return self.name if self.single else f"{self.name}[i]"


_Tensor = _Vector | np.ndarray


class _Translation:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.code = NetworkCode()
        self.graph = onnx.load(path).graph
        self.tensors: dict[str, _Tensor] = {}

    def run(self) -> NetworkCode:
        for initializer in self.graph.initializer:
            self.tensors[initializer.name] = numpy_helper.to_array(initializer)
        for value in self.graph.input:
            size = value.type.tensor_type.shape.dim[-1].dim_value
            self.tensors[value.name] = _Vector(value.name, size, single=value.name == "dial")
        for node in self.graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self.tensors[node.output[0]] = self._translate(node, attributes)
        action = self.tensors["action"]
        assert isinstance(action, _Vector)
        self.code.body.append(f"for (int i = 0; i < {action.size}; ++i) action[i] = {action.element()};")
        return self.code

    def _translate(self, node: Any, attributes: dict[str, Any]) -> _Tensor:
        inputs = [self.tensors[name] for name in node.input if name]
        operator = node.op_type
        if operator == "Constant" and "value" in attributes:
            return numpy_helper.to_array(attributes["value"])
        if operator == "Identity":
            return inputs[0]
        if operator in _BINARY:
            return self._elementwise(f"{{0}} {_BINARY[operator]} {{1}}", inputs)
        if operator == "Clip" and len(inputs) == 3:
            return self._elementwise("clip({0}, {1}, {2})", inputs)
        if operator in _ACTIVATIONS:
            alpha = cpp.number(np.float32(attributes.get("alpha", 1.0)))
            return self._elementwise(_ACTIVATIONS[operator].format(x="{0}", alpha=alpha), inputs)
        if operator in ("MatMul", "Gemm") and (layer := self._affine(inputs, attributes)) is not None:
            return layer
        place = f"operator {operator} (node {node.name or node.output[0]})"
        raise ConfigError(f"format=cpp: {self.path.name}: {place} is not known here")

    def _affine(self, inputs: list[_Tensor], attributes: dict[str, Any]) -> _Vector | None:
        x, weight, *rest = inputs
        if not isinstance(x, _Vector) or x.single or not isinstance(weight, np.ndarray) or attributes.get("transA", 0):
            return None
        matrix = weight * np.float32(attributes.get("alpha", 1.0))
        matrix = matrix if attributes.get("transB", 0) else matrix.T  # (out, in)
        bias = rest[0] if rest else np.zeros(len(matrix), np.float32)
        if not isinstance(bias, np.ndarray):
            return None
        bias = np.broadcast_to(bias.reshape(-1) * np.float32(attributes.get("beta", 1.0)), len(matrix))
        rows = -(-len(matrix) // LANES) * LANES
        filled = np.zeros((rows, matrix.shape[1]), np.float32)
        filled[: len(matrix)] = matrix
        blocks = filled.reshape(-1, LANES, matrix.shape[1]).transpose(0, 2, 1)
        names = self._constant(blocks), self._constant(np.pad(bias, (0, rows - len(matrix))))
        result = self._buffer(rows, len(matrix))
        self.code.body.append(f"affine<{x.size}, {len(matrix)}>({x.name}, {names[0]}, {names[1]}, {result.name});")
        return result

    def _elementwise(self, template: str, inputs: list[_Tensor]) -> _Vector:
        sizes = [tensor.size for tensor in inputs]
        size = max(sizes)
        elements = [self._element(tensor) for tensor in inputs]
        result = self._buffer(size, size)
        self.code.body.append(f"for (int i = 0; i < {size}; ++i) {result.name}[i] = {template.format(*elements)};")
        return result

    def _element(self, tensor: _Tensor) -> str:
        if isinstance(tensor, _Vector):
            return tensor.element()
        return cpp.number(tensor.reshape(-1)[0]) if tensor.size == 1 else f"{self._constant(tensor)}[i]"

    def _constant(self, values: np.ndarray) -> str:
        name = f"kNetwork{len(self.code.constants)}"
        literals = [cpp.number(value) for value in np.asarray(values, np.float32).reshape(-1)]
        self.code.constants.append(cpp.array("float", name, literals, aligned=True))
        return name

    def _buffer(self, capacity: int, size: int) -> _Vector:
        name = f"layer{len(self.code.body)}"
        self.code.body.append(f"alignas(64) float {name}[{capacity}];")
        return _Vector(name, size)
