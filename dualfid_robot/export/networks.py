"""A policy as plain modules, and modules as files: ONNX and TorchScript."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dualfid_robot.errors import ConfigError

if TYPE_CHECKING:  # of an extra
    import onnx

OPSET = 20
DIAL_LOW, DIAL_HIGH = 0.0, 1.5

_NOISY = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")
"""Loggers that speak while a graph is written."""


class FixedNormalizer(nn.Module):
    """clip((observation - mean) * scale, ±bound) with constants.

    Args:
        mean, scale: (dim,) float32.
        bound: of the normalised observation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, bound: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.bound = bound

    def forward(self, observation: Tensor) -> Tensor:
        return ((observation - self.mean) * self.scale).clamp(-self.bound, self.bound)


class DialLinear(nn.Module):
    """A linear layer whose adapter acts in part, W + λ·s·B·A: x -> x Wᵀ + b + λ (s x Aᵀ Bᵀ + δb).

    λ = 0 gives the base layer to the bit, λ = 1 the adapted one up to rounding.

    Args:
        weight: (out, in) W; bias: (out,) b.
        lora_a: (rank, in) A, or None where `lora_b` is the whole difference of a full-rank adapter.
        lora_b: (out, rank) or (out, in) B.
        bias_delta: (out,) δb.
        scaling: s.
    """

    weight: Tensor
    bias: Tensor
    lora_a: Tensor | None
    lora_b: Tensor
    bias_delta: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, lora_a: Tensor | None, lora_b: Tensor, bias_delta: Tensor, scaling: float
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("lora_a", lora_a)
        self.register_buffer("lora_b", scaling * lora_b)
        self.register_buffer("bias_delta", bias_delta)

    def forward(self, x: Tensor, dial: Tensor) -> Tensor:
        narrow = x if self.lora_a is None else nn.functional.linear(x, self.lora_a)
        change = nn.functional.linear(narrow, self.lora_b, self.bias_delta)
        return nn.functional.linear(x, self.weight, self.bias) + dial * change


class DialNetwork(nn.Module):
    """A stack of layers of which the `DialLinear` ones share one dial: (n, obs_dim), (1,) -> (n, act_dim)."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, observation: Tensor, dial: Tensor) -> Tensor:
        for layer in self.layers:
            observation = layer(observation, dial) if isinstance(layer, DialLinear) else layer(observation)
        return observation


def write_network_onnx(network: nn.Module, obs_dim: int, path: Path) -> None:
    """Write a policy's network: `observation` (n, obs_dim) and, of a `DialNetwork`, `dial` (1,) -> `action`."""
    dynamic: dict[str, dict[int, torch.export.Dim]] = {"observation": {0: torch.export.Dim("n")}}
    if isinstance(network, DialNetwork):
        dynamic["dial"] = {}
    write_model(onnx_model(network, _example(network, obs_dim), dynamic, ["action"], path.name), path)


def onnx_model(
    module: nn.Module | torch.export.ExportedProgram,
    arguments: tuple[Any, ...],
    dynamic: dict[str, dict[int, torch.export.Dim]],
    outputs: Sequence[str],
    name: str,
) -> onnx.ModelProto:
    """A module as ONNX of `OPSET` with none but ONNX's own operators.

    Args:
        module: a module, or one that is traced already.
        arguments: examples of its inputs.
        dynamic: the inputs' names in order, each with its dimensions of any size.
        outputs: names of its results.
        name: of its file, for the error.

    Raises:
        ConfigError: it takes other operators than ONNX's own.
    """
    import onnx

    with quiet():
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(dynamic),
            output_names=list(outputs),
            dynamic_shapes=tuple(dynamic.values()),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origin(model)
    foreign = sorted({node.domain for node in model.graph.node} - {""})
    if foreign or model.functions:
        raise ConfigError(f"{name}: needs operators of {', '.join(foreign)}, which not every ONNX runtime has")
    onnx.checker.check_model(model, full_check=True)
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write an ONNX file: of the same model, the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_torchscript(network: nn.Module, obs_dim: int, path: Path) -> None:
    """Write a policy's network as frozen TorchScript, called with the same inputs as the ONNX file."""
    with quiet(), torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(network, _example(network, obs_dim)))
    content = io.BytesIO()  # torch would turn an error of the disk into one of its own
    torch.jit.save(traced, content)
    path.write_bytes(content.getbuffer())


def embed_property(path: Path, key: str, value: str) -> None:
    """Set a property of an ONNX file's model."""
    import onnx

    model = onnx.load(path)
    properties = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
    onnx.helper.set_model_props(model, properties)
    write_model(model, path)


def _example(network: nn.Module, obs_dim: int) -> tuple[Tensor, ...]:
    observation = torch.zeros(2, obs_dim)  # two rows: one would be taken for a constant
    return (observation, torch.ones(1)) if isinstance(network, DialNetwork) else (observation,)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks about packages that nothing here needs and about its own future."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _forget_origin(model: object) -> None:
    """Drop the exporter's notes on where in the source each node came from: paths of the machine that wrote it."""
    graph = model.graph  # type: ignore[attr-defined]
    model.ClearField("metadata_props")  # type: ignore[attr-defined]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
