"""`isaacgym.gymutil`: command lines, settings and drawing helpers."""

from __future__ import annotations

import argparse
from typing import Any
from xml.etree import ElementTree

import torch

from dualfid_robot.isaacgym.api import gymapi
from dualfid_robot.isaacgym.session import not_provided, say_once


def parse_device_str(device_str: str) -> tuple[str, int]:
    """Type and index of a device such as "cpu" or "cuda:1".

    Raises:
        ValueError: another type.
    """
    kind, _, index = device_str.partition(":")
    if kind not in ("cpu", "cuda", "gpu"):
        raise ValueError(f"sim_device={device_str}: allowed are cpu and cuda:<index>")
    return ("cuda" if kind == "gpu" else kind), int(index or 0)


def parse_arguments(
    description: str = "Isaac Gym Example",
    headless: bool = False,
    no_graphics: bool = False,
    custom_parameters: list[dict[str, Any]] = [],  # noqa: B006  (Isaac Gym's signature)
) -> argparse.Namespace:
    """Arguments of an Isaac Gym script: its own, and those that every such script has.

    Without CUDA on the machine, every default device is the CPU.
    """
    parser = argparse.ArgumentParser(description=description)
    if headless:
        parser.add_argument("--headless", action="store_true", help="run without a viewer")
    if no_graphics:
        parser.add_argument("--nographics", action="store_true", help="no graphics context")
    parser.add_argument("--sim_device", default=_device("cuda:0"), help="cpu or cuda:<index>")
    parser.add_argument("--pipeline", default="gpu", help="where tensors are: cpu or gpu")
    parser.add_argument("--graphics_device_id", type=int, default=0)
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--flex", action="store_true")
    engine.add_argument("--physx", action="store_true")
    parser.add_argument("--num_threads", type=int, default=0)
    parser.add_argument("--subscenes", type=int, default=0)
    parser.add_argument("--slices", type=int)
    for parameter in custom_parameters:
        options = {key: value for key, value in parameter.items() if key != "name"}
        if isinstance(options.get("default"), str):
            options["default"] = _device(options["default"])
        parser.add_argument(parameter["name"], **options)
    arguments = parser.parse_args()

    # What scripts expect to find besides the arguments themselves.
    arguments.sim_device_type, arguments.compute_device_id = parse_device_str(arguments.sim_device)
    on_gpu = arguments.sim_device_type == "cuda"
    if arguments.pipeline.lower() not in ("cpu", "gpu", "cuda"):
        parser.error(f"--pipeline={arguments.pipeline}: allowed are cpu and gpu")
    arguments.use_gpu = on_gpu
    arguments.use_gpu_pipeline = on_gpu and arguments.pipeline.lower() != "cpu"
    arguments.physics_engine = gymapi.SIM_FLEX if arguments.flex else gymapi.SIM_PHYSX
    if arguments.slices is None:
        arguments.slices = arguments.subscenes
    return arguments


def _device(default: str) -> str:
    """A default device, or the CPU where it is a GPU that the machine lacks."""
    if not default.startswith("cuda") or torch.cuda.is_available():
        return default
    say_once(f"this machine has no CUDA: default devices {default} become cpu")
    return "cpu"


def parse_sim_config(sim_cfg: dict[str, Any], sim_params: gymapi.SimParams) -> None:
    """Write settings by name into `sim_params`; those of `physx` and `flex` into its parts."""
    for name, value in sim_cfg.items():
        if name in ("physx", "flex"):
            for key, part in value.items():
                setattr(getattr(sim_params, name), key, part)
        elif name == "gravity":
            sim_params.gravity = gymapi.Vec3(*value)
        elif name == "up_axis":
            sim_params.up_axis = gymapi.UpAxis(value)
        else:
            setattr(sim_params, name, value)


def _indent_xml(elem: ElementTree.Element, level: int = 0) -> None:
    """Indent an XML tree in place."""
    ElementTree.indent(elem, level=level)


class LineGeometry:
    """Lines that a task wants to draw; nothing draws them here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        say_once("debug lines are not drawn")


class AxesGeometry(LineGeometry):
    """Coordinate axes."""


class WireframeSphereGeometry(LineGeometry):
    """A sphere of wires."""


class WireframeBoxGeometry(LineGeometry):
    """A box of wires."""


def draw_lines(geom: LineGeometry, gym: Any, viewer: Any, env: Any, pose: gymapi.Transform) -> None:
    """Draw nothing; the geometry has said so."""


def __getattr__(name: str) -> Any:
    raise not_provided(f"gymutil.{name}")
