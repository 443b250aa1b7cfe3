"""The least that `policy.hpp` is made from, without a task or a checkpoint."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dualfid_robot.export.networks import DialLinear, DialNetwork, FixedNormalizer, embed_property, write_network_onnx
from dualfid_robot.onboard import metadata as meta
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import METADATA, METADATA_KEY, POLICY, ExportedPolicy, write_sums


def bare_metadata(nq: int, nv: int, bodies: int, obs_dim: int, act_dim: int, **changes: Any) -> Metadata:
    """Metadata of a robot without named joints: one term over the whole observation, controls = clipped actions."""
    actuators = tuple(
        meta.Actuator(f"motor {i}", "", "motor", 1.0, 0.0, 0.0, -1.0, 1.0, None, None, 0.0) for i in range(act_dim)
    )
    names = tuple(f"body {i}" for i in range(bodies))
    metadata = Metadata(
        schema_version=meta.SCHEMA_VERSION,
        package=meta.Package("1.2", ""),
        task="Bare",
        robot=meta.RobotInfo("bare", "robot.xml", (), names, False, nq, nv),
        joints=(),
        actuators=actuators,
        timing=meta.Timing(0.02, 0.005, 4),
        observation=(meta.ObservationTerm("all", obs_dim, 1.0, 5.0, 0.0, 1, "", "1", ()),),
        action=meta.Action("force", (1.0,) * act_dim, (0.0,) * act_dim, 1.0, False),
        commands=(),
        memory=(),
        reward=(),
        episode_length=100,
        policy=meta.PolicyInfo("adapted", meta.Lora(8, 8.0, True), None, True, obs_dim, act_dim, 20, "float32"),
        training=meta.Training(0, 0, 0, 0.0, "both", {}, {}, (), {}),
        evaluations={},
        visited=meta.Visited((None,) * act_dim, (None,) * act_dim, (1.0,) * act_dim),
        sample=meta.Sample((0.0,) * obs_dim, (0.0,) * act_dim),
        verification=meta.Verification(0.0, None, None, 0.0, 0.0, 0, 0),
    )
    return dataclasses.replace(metadata, **changes)


def bare_network(kind: str, obs_dim: int, act_dim: int) -> nn.Module:
    """A network with fixed random weights and widths that are no multiples of anything.

    Args:
        kind: "ELU", "Tanh" and so on of torch.nn, or "dial" for one with a dial.
    """
    generator = torch.Generator().manual_seed(1)
    sizes = (obs_dim, 40, 33, act_dim)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    layers: list[nn.Module] = [FixedNormalizer(randn(obs_dim), randn(obs_dim).abs() + 0.5, 5.0)]
    for i, (columns, rows) in enumerate(pairwise(sizes)):
        rank = columns if i == 2 else 8  # the output layer's adapter is a full matrix
        a = None if i == 2 else randn(rank, columns)
        layer = DialLinear(randn(rows, columns), randn(rows), a, randn(rows, rank), randn(rows), 0.5)
        if kind != "dial":
            linear = nn.Linear(columns, rows)
            linear.weight.data, linear.bias.data = layer.weight, layer.bias
        layers.append(layer if kind == "dial" else linear)
        if i < 2:
            layers.append(nn.ELU() if kind == "dial" else getattr(nn, kind)())
    return (DialNetwork(layers) if kind == "dial" else nn.Sequential(*layers)).eval()


@cache
def _network_file(kind: str, obs_dim: int, act_dim: int) -> tuple[bytes, tuple[float, ...], tuple[float, ...]]:
    """policy.onnx and a sample of an observation and PyTorch's action; tracing takes seconds, hence once."""
    network = bare_network(kind, obs_dim, act_dim)
    observation = torch.randn(1, obs_dim, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        action = network(observation, torch.ones(1)) if kind == "dial" else network(observation)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / POLICY
        write_network_onnx(network, obs_dim, path)
        return path.read_bytes(), tuple(observation[0].tolist()), tuple(action[0].tolist())


def write_bare_policy(metadata: Metadata, kind: str, folder: Path) -> ExportedPolicy:
    """Add `policy.onnx` with a `bare_network`, the metadata with its sample and the sums to a folder with
    `observation.onnx` in it."""
    info = metadata.policy
    content, *sample = _network_file(kind, info.obs_dim, info.act_dim)
    if kind == "dial":
        info = dataclasses.replace(info, head="dial", dial=meta.Dial(0.0, 1.5, 1.0))
    text = dataclasses.replace(metadata, policy=info, sample=meta.Sample(*sample)).to_json()
    (folder / POLICY).write_bytes(content)
    embed_property(folder / POLICY, METADATA_KEY, text)
    (folder / METADATA).write_text(text)
    write_sums(folder)
    return ExportedPolicy(folder)
