"""ELU and its derivative in bfloat16 on a CPU, each in one pass over memory. Numba compiles them when this module is
first imported.

Torch takes seven passes, or one with an exponential that costs five times as much. Arithmetic is float32. eˣ is 2^n eʳ,
where the size of r is at most ½ ln 2. eʳ − 1 is a polynomial with the coefficients of Cephes' expf (S. Moshier,
netlib.org/cephes). It keeps the relative precision of small arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

F, I = np.float32, np.int32  # noqa: E741
LOG2_E, LN2_HIGH, LN2_LOW = F(1.0 / np.log(2.0)), F(0.693359375), F(-2.12194440e-4)
LEAST = F(-87.0)
"""Below it eˣ − 1 is −1 in float32."""
C2, C3, C4, C5, C6, C7 = (
    F(c) for c in (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
)


def can_be_kept() -> bool:
    """Whether Numba finds a folder for what it compiles: beside this file, or the user's for caches."""
    try:
        FunctionCache(can_be_kept)
    except RuntimeError:  # it may write to neither
        return False
    return True


SETTINGS: dict[str, Any] = {
    "nogil": True,
    "cache": can_be_kept(),
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}


@intrinsic
def _float_of_bits(context: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _bits_of_float(context: Any, value: Any) -> Any:
    """The bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@njit(inline="always")
def _load(narrow: Any) -> Any:
    """A bfloat16, given as int16, as float32."""
    return _float_of_bits(I(I(narrow) << I(16)))


@njit(inline="always")
def _store(value: Any) -> Any:
    """A float32 rounded to the nearest bfloat16, ties to even, as int16."""
    bits = _bits_of_float(value)
    return np.int16((bits + I(0x7FFF) + ((bits >> I(16)) & I(1))) >> I(16))


@njit(inline="always")
def _expm1(x: Any) -> Any:
    """eˣ − 1 for x ≤ 0."""
    x = max(x, LEAST)
    n = F(np.rint(x * LOG2_E))
    r = x - n * LN2_HIGH - n * LN2_LOW
    p = ((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2
    scale = _float_of_bits(I((I(n) + I(127)) << I(23)))
    return scale * (p * r * r + r) + (scale - F(1.0))


@njit("void(int16[:, ::1], float32[::1])", **SETTINGS)
def add_bias_and_elu(y: Any, bias: Any) -> None:
    """y ← ELU(y + bias) in place; y (rows, columns), bias (columns,)."""
    rows, columns = y.shape
    for i in range(rows):
        for j in range(columns):
            x = _load(y[i, j]) + bias[j]
            y[i, j] = _store(x if not x < F(0.0) else _expm1(min(x, F(0.0))))


@njit("void(int16[:, ::1], int16[:, ::1], float32[::1])", **SETTINGS)
def elu_backward(grad: Any, y: Any, sums: Any) -> None:
    """grad ← grad · ELU′, in place, from ELU's result y; sums (columns,) of the result over the rows."""
    rows, columns = y.shape
    sums[:] = F(0.0)
    for i in range(rows):
        for j in range(columns):
            value = _load(y[i, j])
            below = _load(grad[i, j]) * (value + F(1.0) if value < F(0.0) else F(1.0))
            grad[i, j] = _store(below)
            sums[j] += below
