"""Mesh files of a URDF: where they are, and a form of them that MuJoCo reads."""

from __future__ import annotations

import importlib.util
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.decisions import Decisions
from dualfid_robot.robots.mjcf import unique

READ_BY_MUJOCO = (".stl", ".obj", ".msh")
_MOST_STL_FACES = 200_000  # that MuJoCo reads
_SCHEMES = ("package://", "model://")


@dataclass
class Meshes:
    """Finds and reads mesh files.

    Attributes:
        base: the URDF's folder.
        folder: where the URDF's <compiler meshdir> lies, from there.
        search: folders in which packages lie.
        contents: what was read, by the name that the file gets beside the result.
    """

    base: Path
    folder: str
    search: tuple[Path, ...]
    decisions: Decisions
    contents: dict[str, bytes] = field(default_factory=dict)
    _names: dict[Path, str] = field(default_factory=dict)

    def find(self, filename: str) -> Path | None:
        """The file that a <mesh> names. It is the first that exists of the places in which tools look for it."""
        text = unquote(filename) if "://" in filename else filename.replace("\\", "/")
        scheme = next((scheme for scheme in _SCHEMES if text.startswith(scheme)), None)
        above = [self.base, *self.base.parents]
        if scheme is not None:
            package, _, rest = text.removeprefix(scheme).partition("/")
            roots = [place / package for place in (*self.search, *above)]
            roots += [place for place in (*self.search, *above) if place.name == package] + above
            places = [root / rest for root in roots]
        elif text.startswith("file://"):
            places = [Path(text.removeprefix("file://"))]
        else:
            places = [self.base / self.folder / text, *(folder / text for folder in above)]
        places.append(self.base / self.folder / Path(text).name)  # as MuJoCo's strippath
        found = next((place for place in places if place.is_file()), None)
        if found is not None and scheme is not None:
            self.decisions.add(f"{scheme}{package}/ lies in {_folder(found, rest)}")
        return found

    def read(self, path: Path) -> str:
        """The name that a mesh file gets beside the result.

        Raises:
            ConfigError: it cannot be read, or nothing here reads its format.
        """
        if path not in self._names:
            content, suffix = _readable(path)
            name = unique(f"{path.stem}{suffix}", self.contents)
            self.contents[name], self._names[path] = content, name
            if suffix != path.suffix.lower():
                self.decisions.add(f"written as {suffix}, which MuJoCo reads", path.name)
        return self._names[path]


def search_path(folders: tuple[str, ...]) -> tuple[Path, ...]:
    """Folders in which packages lie: those of the setting, then those of the ROS that is set up, if any."""
    ros = [Path(text) for text in os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep) if text]
    ament = [Path(text) / "share" for text in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if text]
    return (*(Path(text).expanduser() for text in folders), *ros, *ament)


def _folder(found: Path, rest: str) -> Path:
    """The folder that a path inside a package starts from."""
    parts = len(Path(rest).parts)
    return found.parents[parts - 1] if 0 < parts <= len(found.parents) else found.parent


def _readable(path: Path) -> tuple[bytes, str]:
    """Content and suffix of a mesh in a format that MuJoCo reads."""
    suffix = path.suffix.lower()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"mesh {path}: cannot be read ({error.strerror})") from error
    if suffix in READ_BY_MUJOCO and (suffix != ".stl" or _is_readable_stl(content)):
        return content, suffix
    return _converted(path)


def _is_readable_stl(content: bytes) -> bool:
    """Whether it is a binary STL, of no more faces than MuJoCo takes."""
    faces = struct.unpack_from("<I", content, 80)[0] if len(content) >= 84 else 0
    return len(content) == 84 + 50 * faces and faces <= _MOST_STL_FACES


def _converted(path: Path) -> tuple[bytes, str]:
    needed = ["trimesh", *(["collada"] if path.suffix.lower() == ".dae" else [])]
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f'mesh {path.name}: MuJoCo reads no such {path.suffix}; to convert it, pip install "dualfid_robot[import]"'
        )
    import trimesh

    try:
        mesh = trimesh.load_mesh(path)
        text = trimesh.exchange.obj.export_obj(mesh, include_normals=False, include_texture=False, digits=9)
        return text.encode(), ".obj"
    except Exception as error:  # its readers raise whatever their parsers do
        raise ConfigError(f"mesh {path.name}: cannot be read ({type(error).__name__}: {error})") from error
