"""Pieces of C++ source: numbers that read back as they were, arrays and texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_WIDTH = 116


def number(value: Any) -> str:
    """A float32, float64, integer or bool as a literal that reads back as the same number."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, np.int64):
        return f"std::int64_t{{{value}}}" if value > np.iinfo(np.int64).min else "INT64_MIN"
    if isinstance(value, int | np.integer):
        return str(int(value))
    double = isinstance(value, np.float64)
    kind = "double" if double else "float"
    if not np.isfinite(value):
        name = "quiet_NaN" if np.isnan(value) else "infinity"
        return f"{'-' if value < 0 else ''}std::numeric_limits<{kind}>::{name}()"
    text = np.format_float_scientific(value, trim="-") if value else f"{'-' if np.signbit(value) else ''}0"
    mantissa, mark, exponent = text.partition("e")
    mantissa = mantissa if "." in mantissa else mantissa + ".0"
    return mantissa + (f"e{int(exponent)}" if mark and int(exponent) else "") + ("" if double else "F")


def text(value: str) -> str:
    """A string literal, in pieces of one line each. Compilers limit the length of one piece."""
    lines = value.split("\n")
    pieces = [line + "\n" for line in lines[:-1]] + lines[-1:]
    cut = [piece[i : i + 1000] for piece in pieces for i in range(0, len(piece), 1000)]
    return "\n".join(f'    "{_escaped(piece)}"' for piece in cut) or '""'


def _escaped(piece: str) -> str:
    names = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "?": "\\?"}
    return "".join(
        names.get(c) or (c if 32 <= ord(c) < 127 else "".join(f"\\{byte:03o}" for byte in c.encode())) for c in piece
    )


def float_array(name: str, values: Iterable[float | None], none: float = np.inf) -> str:
    """A constexpr array of floats, with `none` where there is no number; never empty, as C++ has no such arrays."""
    numbers = [np.float32(none if value is None else value) for value in values]
    return array("float", name, [number(value) for value in numbers] or ["0.0F"])


def text_array(name: str, values: Sequence[str]) -> str:
    """A constexpr array of strings; never empty."""
    return array("const char*", name, [f'"{_escaped(value)}"' for value in values] or ['""'])


def array(kind: str, name: str, literals: Sequence[str], aligned: bool = False) -> str:
    """A constexpr array of so many literals, wrapped."""
    lines, line = [], ""
    for literal in literals:
        if line and len(line) + len(literal) + 2 > _WIDTH:
            lines.append(line)
            line = ""
        line += literal + ", " if line else "    " + literal + ", "
    body = "\n".join(line.rstrip() for line in [*lines, line])
    return f"{'alignas(64) ' if aligned else ''}inline constexpr {kind} {name}[] = {{\n{body}\n}};"
