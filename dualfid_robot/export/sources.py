"""Which inputs a robot has to measure for each term of an observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from dualfid_robot.export.cpp.unrolling import unroll
from dualfid_robot.onboard.metadata import ObservationTerm


def term_sources(path: Path, terms: Sequence[ObservationTerm]) -> tuple[tuple[str, ...], ...]:
    """For each term of an observation, the inputs that its newest value depends on, such as "qpos[3:7]".

    Columns are counted flat: the k-th component of the b-th body in "contact_wrench" is column 6 b + k. An input of one
    column per robot, such as "first", stands alone.

    Args:
        path: of `observation.onnx`.

    Raises:
        ConfigError: the graph has an operator that is not known here.
    """
    sources, shapes = unroll(path), _input_ranks(path)
    elements = sources.sources("values")
    described, column = [], 0
    for term in terms:
        merged: set[tuple[str, int]] = set().union(*elements[column : column + term.dim])
        described.append(tuple(_ranges(merged, shapes)))
        column += term.dim
    return tuple(described)


def _input_ranks(path: Path) -> dict[str, int]:
    graph = onnx.load(path).graph
    return {value.name: len(value.type.tensor_type.shape.dim) for value in graph.input}


def _ranges(elements: set[tuple[str, int]], ranks: Mapping[str, int]) -> list[str]:
    """Elements as text, with neighbouring columns joined. Inputs are in the graph's order."""
    texts = []
    for name, rank in ranks.items():
        columns = sorted(column for source, column in elements if source == name)
        if columns and rank == 1:
            texts.append(name)
            continue
        for first in (c for c in columns if c - 1 not in columns):
            last = next(c for c in range(first, first + len(columns)) if c + 1 not in columns)
            texts.append(f"{name}[{first}:{last + 1}]")
    return texts
