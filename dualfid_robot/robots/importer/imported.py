"""What an import gives, and how it is written."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mujoco

from dualfid_robot.atomic import write_bytes, write_text
from dualfid_robot.errors import ConfigError


@dataclass(frozen=True)
class ImportedRobot:
    """A robot from another description.

    Attributes:
        mjcf: its MJCF; files stand in it by their names alone.
        files: contents of meshes, images and height fields, by these names.
        decisions: what was decided on the way, one line each.
    """

    mjcf: ET.Element
    files: Mapping[str, bytes]
    decisions: tuple[str, ...]

    def text(self, folder: str = "") -> str:
        """The MJCF as text, whose files lie in a folder beside it."""
        root = copy.deepcopy(self.mjcf)
        if folder and self.files:
            compiler = root.find("compiler")
            if compiler is None:
                root.insert(0, compiler := ET.Element("compiler"))
            compiler.set("assetdir", folder)
            for model in root.iterfind("asset/model"):  # which assetdir is not for
                model.set("file", f"{folder}/{model.get('file')}")
        ET.indent(root)
        return ET.tostring(root, encoding="unicode") + "\n"

    @property
    def spec(self) -> mujoco.MjSpec:
        """The robot for changes, with its files in memory.

        Raises:
            ConfigError: MuJoCo does not take it.
        """
        try:
            return mujoco.MjSpec.from_string(self.text(), assets=dict(self.files))
        except ValueError as error:
            raise ConfigError(f"MuJoCo does not take the robot: {' '.join(str(error).split())}") from error

    def compile(self) -> mujoco.MjModel:
        """The compiled robot; raises as `spec` does."""
        spec = self.spec
        try:
            return spec.compile()
        except ValueError as error:
            raise ConfigError(f"MuJoCo does not take the robot: {' '.join(str(error).split())}") from error

    def write(self, path: Path) -> None:
        """Write the MJCF, and its files to the folder `<name>_files` beside it.

        Raises:
            ConfigError: a file cannot be written.
        """
        folder = path.with_name(f"{path.stem}_files")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for name, content in self.files.items():
                folder.mkdir(exist_ok=True)
                write_bytes(folder / name, content)
            write_text(path, self.text(folder.name))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
