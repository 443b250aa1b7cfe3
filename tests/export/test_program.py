"""Programs against onnxruntime: each operator, and random graphs of them; sources of observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dualfid_robot.envs.registry import task_names
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.cpp.program import Constant, Operation, Program
from dualfid_robot.export.cpp.unrolling import HANDLERS, unroll
from dualfid_robot.export.sources import term_sources
from dualfid_robot.onboard.metadata import ObservationTerm
from dualfid_robot.onboard.runtime import EPISODE, OBSERVATION

COLUMNS = 6
ROWS = 40
TYPES = {"x": TensorProto.FLOAT, "y": TensorProto.FLOAT, "k": TensorProto.INT32, "b": TensorProto.BOOL}
EDGES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1.0, -1.0, 1e-40, 3e38)


def floats(seed: int) -> np.ndarray:
    """(ROWS, COLUMNS) of ordinary numbers, in a third of which there are edge values."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(ROWS, COLUMNS)) * 2.0
    return np.where(rng.random(values.shape) < 0.3, rng.choice(EDGES, values.shape), values).astype(np.float32)


def example_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    whole = rng.integers(-9, 10, (ROWS, COLUMNS)).astype(np.int32)
    return {"x": floats(1), "y": floats(2), "k": whole, "b": rng.random((ROWS, COLUMNS)) < 0.5}


@dataclass
class Case:
    """One operator on inputs x, y (float), k (int32) and b (bool), each (n, COLUMNS), and on constants c0, c1, …"""

    operator: str
    inputs: tuple[str, ...]
    constants: tuple[Any, ...] = ()
    attributes: dict[str, Any] | None = None

    def nodes(self, output: str) -> tuple[list[Any], list[Any]]:
        """Nodes and initializers; names are made unique by the output's."""
        tensors = [
            numpy_helper.from_array(np.asarray(value), f"{output}_c{i}") for i, value in enumerate(self.constants)
        ]
        names = [name if name in TYPES or not name else f"{output}_{name}" for name in self.inputs]
        return [helper.make_node(self.operator, names, [output], **(self.attributes or {}))], tensors


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


ROW = f32(0.3, -1.5, 2.0, -0.0, 7.0, 0.25)
CASES = [
    *(Case(name, ("x", "y")) for name in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")),
    *(Case(name, ("x", "c0"), (ROW,)) for name in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")),
    *(Case(name, ("c0", "x"), (ROW,)) for name in ("Sub", "Div", "Max")),
    *(Case(name, ("x",)) for name in ("Neg", "Abs", "Sqrt", "Exp", "Sin", "Cos", "Atan", "Floor", "Round", "IsNaN")),
    *(Case(name, ("x",)) for name in ("Reciprocal", "Identity")),
    *(Case(name, ("x", "y")) for name in ("Less", "LessOrEqual", "Greater")),
    *(Case(name, ("b", "c0"), (np.array([True, False] * 3),)) for name in ("And", "Or")),
    Case("Pow", ("x", "c0"), (f32(2.0),)),
    Case("Clip", ("x", "c0", "c1"), (np.float32(-1.5), np.float32(2.5))),
    Case("Clip", ("x", "", "c0"), (np.float32(2.5),)),
    Case("Clip", ("k", "c0", "c1"), (np.int32(-2), np.int32(3))),
    Case("Where", ("b", "x", "y")),
    Case("Where", ("c0", "x", "y"), (np.array([True, False] * 3),)),
    Case("Cast", ("k",), attributes={"to": TensorProto.FLOAT}),
    Case("Cast", ("b",), attributes={"to": TensorProto.FLOAT}),
    Case("Cast", ("k",), attributes={"to": TensorProto.BOOL}),
    Case("Cast", ("x",), attributes={"to": TensorProto.BOOL}),
    *(Case(name, ("k", "c0"), (np.array([1, -2, 3, 4, -5, 9], np.int32),)) for name in ("Add", "Sub", "Mul", "Div")),
    *(Case(name, ("x", "c0"), (i64(1),)) for name in ("ReduceSum", "ReduceMax")),
    Case("ReduceL2", ("x", "c0"), (i64(-1),), {"keepdims": 0}),
    Case("ReduceSum", ("x",), (), {"noop_with_empty_axes": 1}),
    *(
        Case("CumSum", ("x", "c0"), (np.int64(axis),), {"exclusive": exclusive, "reverse": reverse})
        for axis, exclusive, reverse in ((1, 0, 0), (-1, 0, 1), (1, 1, 0), (1, 1, 1))
    ),
    Case("MatMul", ("x", "c0"), (np.linspace(-1, 1, COLUMNS * 4, dtype=np.float32).reshape(COLUMNS, 4),)),
    Case("Gather", ("x", "c0"), (i64(3, 0, -1),), {"axis": 1}),
    Case("Gather", ("c0", "k"), (np.linspace(0, 3, 19, dtype=np.float32),)),
    Case("Gather", ("c0", "k"), (np.arange(7, 26, dtype=np.uint8),)),
    Case("Gather", ("c0", "k"), (np.arange(38, dtype=np.float32).reshape(2, 19),), {"axis": 1}),
    Case("GatherND", ("x", "c0"), (np.array([[0, 4], [0, -1]]),)),
    Case("ScatterND", ("x", "c0", "c1"), (np.array([[0, 4], [0, 1]]), f32(1.0, 2.0))),
    Case("Reshape", ("x", "c0"), (i64(0, 2, -1),)),
    Case("Unsqueeze", ("x", "c0"), (i64(1),)),
    Case("Squeeze", ("x", "c0"), (i64(0),)),
    Case("Transpose", ("x",), (), {"perm": [1, 0]}),
    Case("Expand", ("x", "c0"), (i64(2, 1, 1),)),
    Case("Shape", ("x",)),
    Case("ConstantOfShape", ("c0",), (i64(2, 3),)),
    Case("Range", ("c0", "c1", "c2"), (np.int64(1), np.int64(9), np.int64(3))),
    Case("Concat", ("x", "y"), (), {"axis": 1}),
    Case("Slice", ("x", "c0", "c1", "c2"), (i64(1), i64(5), i64(1))),
    Case("Slice", ("x", "c0", "c1", "c2", "c3"), (i64(-1), i64(-100), i64(1), i64(-2))),
]


def model_of(cases: list[Case]) -> Any:
    """A graph of one output o<i> per case."""
    parts = [case.nodes(f"o{i}") for i, case in enumerate(cases)]
    nodes = [node for some, _ in parts for node in some]
    return graph_model(
        nodes, [tensor for _, tensors in parts for tensor in tensors], [f"o{i}" for i in range(len(cases))]
    )


def graph_model(nodes: list[Any], tensors: list[Any], outputs: list[str]) -> Any:
    """A model with those of the inputs `TYPES` that it uses, for any number of rows."""
    used = {name for node in nodes for name in node.input}
    inputs = [helper.make_tensor_value_info(name, kind, ["n", COLUMNS]) for name, kind in TYPES.items() if name in used]
    graph = helper.make_graph(nodes, "graph", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run_rows(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Outputs of onnxruntime for each row alone."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    rows = [
        session.run(names, {name: values[row : row + 1] for name, values in inputs.items() if name in wanted})
        for row in range(ROWS)
    ]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def save(model: Any, path: Path) -> Path:
    onnx.save(model, path)
    return path


def assert_same(program: Program, inputs: dict[str, np.ndarray], expected: dict[str, list[np.ndarray]]) -> None:
    """Equal up to the rounding of elementary functions and of sums in another order."""
    found = program.evaluate(inputs)
    for name, rows in expected.items():
        assert program.outputs[name].shape == rows[0].shape
        flat = np.stack([row.reshape(-1) for row in rows])
        assert found[name].dtype == flat.dtype
        np.testing.assert_allclose(found[name], flat, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator}-{'-'.join(case.inputs)}")
def test_each_operator_computes_what_onnxruntime_computes(case: Case, tmp_path: Path) -> None:
    model, inputs = model_of([case]), example_inputs()
    if case.operator == "ReduceMax":  # where onnxruntime overlooks a NaN, or not, by its place
        inputs["x"] = np.nan_to_num(inputs["x"])
    program = unroll(save(model, tmp_path / "case.onnx"))
    assert_same(program, inputs, run_rows(model, inputs))


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceSum"])
@pytest.mark.parametrize("column", range(COLUMNS))
def test_a_reduction_of_nan_is_nan(operator: str, column: int, tmp_path: Path) -> None:
    x = np.ones((1, COLUMNS), np.float32)
    x[:, column] = np.nan
    program = unroll(save(model_of([Case(operator, ("x", "c0"), (i64(1),))]), tmp_path / "case.onnx"))
    assert np.isnan(program.evaluate({"x": x})["o0"]).all()


UNARY = ("Neg", "Abs", "Sin", "Cos", "Floor", "Round", "Atan", "Identity")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")


@st.composite
def expressions(draw: st.DrawFn) -> Any:
    """A random graph of shape-preserving operators and shuffles of columns, on x, y and a constant."""
    names, nodes, tensors = ["x", "y", "c"], [], [numpy_helper.from_array(ROW[None], "c")]
    for i in range(draw(st.integers(1, 12))):
        operator = draw(st.sampled_from((*UNARY, *BINARY, "Where", "Gather")))
        first, second = (draw(st.sampled_from(names)) for _ in range(2))
        if operator == "Where":
            nodes.append(helper.make_node("Less", [first, second], [f"l{i}"]))
            nodes.append(helper.make_node("Where", [f"l{i}", second, first], [f"t{i}"]))
        elif operator == "Gather":
            order = draw(st.lists(st.integers(-COLUMNS, COLUMNS - 1), min_size=COLUMNS, max_size=COLUMNS))
            tensors.append(numpy_helper.from_array(i64(*order), f"i{i}"))
            nodes.append(helper.make_node("Gather", [first, f"i{i}"], [f"t{i}"], axis=1))
        else:
            nodes.append(helper.make_node(operator, [first, second] if operator in BINARY else [first], [f"t{i}"]))
        names.append(f"t{i}")
    return graph_model(nodes, tensors, [names[-1]])


@settings(max_examples=60, deadline=None)
@given(model=expressions(), seed=st.integers(0, 1000))
def test_random_graphs_compute_what_onnxruntime_computes(
    model: Any, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)  # whole numbers, so that no rounding is between two sides of a comparison
    inputs = {name: rng.integers(-3, 4, (ROWS, COLUMNS)).astype(np.float32) for name in ("x", "y")}
    program = unroll(save(model, tmp_path_factory.mktemp("random") / "graph.onnx"))
    results = run_rows(model, inputs)
    numbers = [value for rows in results.values() for row in rows for value in row.flat]
    if np.isfinite(numbers).all() and np.abs(numbers).max() < 1e6:
        assert_same(program, inputs, results)


OF_OTHERS = {
    "CumSum",
    "Range",
    "ScatterND",
}  # of docs/your_own_robot.md's task, and of test_graphs', which writes by index


@pytest.mark.slow
def test_the_operators_are_those_of_the_tasks_graphs(export_of: Callable[..., Path]) -> None:
    """None is missing and none is kept in vain."""
    found: set[str] = set()
    for name in task_names():
        for graph in (OBSERVATION, EPISODE):
            model = onnx.load(export_of(name) / graph)
            model = onnx.inliner.inline_local_functions(model) if model.functions else model
            found |= {node.op_type for node in model.graph.node}
    assert found | OF_OTHERS == set(HANDLERS)


def test_equal_operations_are_shared_and_known_ones_are_done(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sin", ["c"], ["s"]),
        helper.make_node("Mul", ["x", "s"], ["a"]),
        helper.make_node("Mul", ["x", "s"], ["b"]),
        helper.make_node("Cos", ["y"], ["unused"]),
        helper.make_node("Add", ["a", "b"], ["o"]),
    ]
    model = graph_model(nodes, [numpy_helper.from_array(np.float32(0.5), "c")], ["o"])
    program = unroll(save(model, tmp_path / "graph.onnx"))
    needed = [program.values[number] for number in program.needed(["o"])]
    operations = [value.name for value in needed if isinstance(value, Operation)]
    assert sorted(operations) == ["Add"] * COLUMNS + ["Mul"] * COLUMNS
    assert [value.value for value in needed if isinstance(value, Constant)] == [np.sin(np.float32(0.5))]


def test_a_computed_index_out_of_range_gives_nan(tmp_path: Path) -> None:
    table = np.linspace(0, 3, 5, dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["c", "i"], ["o"]),
    ]
    program = unroll(save(graph_model(nodes, [numpy_helper.from_array(table, "c")], ["o"]), tmp_path / "graph.onnx"))
    x = f32(np.nan, np.inf, 5.0, -6.0, 4.0, -5.0)[None]
    found = program.evaluate({"x": x})["o"]
    np.testing.assert_array_equal(found, [[np.nan] * 4 + [table[4], table[0]]])


def test_sources_are_the_inputs_that_change_an_output(tmp_path: Path) -> None:
    """Against onnxruntime: an output changes when its source does, and otherwise does not."""
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["part"], axis=1),
        helper.make_node("ReduceSum", ["part", "axis"], ["total"], keepdims=1),
        helper.make_node("Add", ["total", "y"], ["o"]),
    ]
    tensors = [numpy_helper.from_array(i64(1, 2, 4), "i"), numpy_helper.from_array(i64(1), "axis")]
    model = graph_model(nodes, tensors, ["o"])
    sources = unroll(save(model, tmp_path / "graph.onnx")).sources("o")
    inputs = {name: np.ones((ROWS, COLUMNS), np.float32) for name in ("x", "y")}
    before = run_rows(model, inputs)["o"][0]
    for name in inputs:
        for column in range(COLUMNS):
            changed = {key: values.copy() for key, values in inputs.items()}
            changed[name][:, column] += 1
            differs = run_rows(model, changed)["o"][0] != before
            assert [(name, column) in source for source in sources] == differs[0].tolist()


def test_terms_name_their_sources(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["part"], axis=1),
        helper.make_node("Mul", ["part", "z"], ["product"]),
        helper.make_node("Concat", ["product", "y"], ["values"], axis=1),
    ]
    model = graph_model(nodes, [numpy_helper.from_array(i64(0, 1, 4), "i")], ["values"])
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"]))
    terms = [ObservationTerm(n, d, 1.0, 5.0, 0.0, 1, "", "1", ()) for n, d in (("a", 2), ("b", 1), ("c", COLUMNS))]
    sources = term_sources(save(model, tmp_path / "graph.onnx"), terms)
    assert sources == (("x[0:2]", "z"), ("x[4:5]", "z"), (f"y[0:{COLUMNS}]",))


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("Erf", ["x"], ["o"], name="here"), r"operator Erf \(node here\) is not known"),
        (helper.make_node("Sin", ["x"], ["o"], name="here", domain="elsewhere"), "is not known"),
        (helper.make_node("Gather", ["x", "k"], ["o"], name="here"), "computes its data and indices from the inputs"),
        (helper.make_node("Reshape", ["x", "k"], ["o"], name="here"), "computes its shape from the inputs"),
    ],
)
def test_what_cannot_be_unrolled_is_named(node: Any, reason: str, tmp_path: Path) -> None:
    path = save(graph_model([node], [], ["o"]), tmp_path / "graph.onnx")
    with pytest.raises(ConfigError, match=f"format=cpp: graph.onnx: .*{reason}"):
        unroll(path)


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    model = model_of([Case("Sin", ("x",))])
    model.opset_import[0].version = 17
    with pytest.raises(ConfigError, match=r"format=cpp: graph\.onnx has opset 17; at least 18 is needed"):
        unroll(save(model, tmp_path / "graph.onnx"))
