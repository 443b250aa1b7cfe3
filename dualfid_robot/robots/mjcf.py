"""An MJCF as text: its includes filled in, its files found as MuJoCo finds them, its elements in MuJoCo's order."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from dualfid_robot.errors import ConfigError

_DIRECTORIES = ("assetdir", "meshdir", "texturedir", "strippath")
_NAMED_BY_FILE = ("mesh", "hfield", "texture", "skin")
_KINDS = {"body": ("body",), "joint": ("joint", "freejoint"), "geom": ("geom",)}
"""Tags of what may stand unnamed below a worldbody."""


@dataclass
class Mjcf:
    """An MJCF that needs nothing but the files beside it.

    Attributes:
        root: its outermost element. Files stand in it by their names alone.
        files: where their contents are, by these names; or the contents of those that were written anew.
    """

    root: ET.Element
    files: dict[str, Path | bytes] = field(default_factory=dict)

    def write_files(self, folder: Path) -> None:
        """Write the files into a folder."""
        for name in self.files:
            (folder / name).write_bytes(self.content(name))

    def content(self, name: str) -> bytes:
        """What a file holds."""
        source = self.files[name]
        return source if isinstance(source, bytes) else source.read_bytes()


def read_mjcf(path: Path, taken: Collection[str] = ()) -> Mjcf:
    """Read an MJCF and find its files.

    Args:
        path: the MJCF; a URDF that another MJCF attaches may be one too.
        taken: names that its files shall not get.

    Raises:
        ConfigError: a file cannot be read, is missing, or includes itself.
    """
    mjcf = Mjcf(_parse(path))
    _Files(path.absolute().parent, mjcf, taken).gather(path.absolute())
    return mjcf


class _Files:
    """Finds the files of an MJCF and of the models that it attaches.

    MuJoCo looks for a file from the main file's folder first, by `meshdir` and so on. It then looks in the folder of
    the included file that names it, without them.
    """

    def __init__(self, base: Path, mjcf: Mjcf, taken: Collection[str]) -> None:
        self.base, self.mjcf, self.taken = base, mjcf, taken
        self.included_from: dict[ET.Element, Path] = {}
        self.names: dict[Path, str] = {}

    def gather(self, path: Path) -> None:
        self._fill_includes(self.mjcf.root, path.parent, (path,))
        compilers = [*self.mjcf.root.findall("compiler"), *self.mjcf.root.findall("mujoco/compiler")]
        directories = {"mesh": "", "texture": ""}
        strip = False
        for compiler in compilers:
            assets = compiler.get("assetdir")
            for kind in directories:
                directories[kind] = compiler.get(f"{kind}dir", assets if assets is not None else directories[kind])
            strip = compiler.get("strippath", str(strip).lower()) == "true"
            for key in _DIRECTORIES:
                compiler.attrib.pop(key, None)
        folders = dict.fromkeys(("mesh", "hfield", "skin", "flexcomp"), directories["mesh"])
        folders |= {"texture": directories["texture"], "model": ""}
        for element in [element for element in self.mjcf.root.iter() if element.tag in folders]:
            for key in [key for key in element.attrib if key.startswith("file")]:
                given = element.attrib[key].replace("\\", "/")
                wanted = Path(given).name if strip and element.tag != "model" else given
                source = self._find(element, wanted, folders[element.tag])
                if source is None and self.mjcf.root.tag == "robot":
                    continue  # a visual, which MuJoCo leaves out
                if source is None:
                    raise ConfigError(f"asset file {wanted}: no such file, as <{element.tag}> names it")
                if key == "file" and element.tag in _NAMED_BY_FILE:
                    element.attrib.setdefault("name", Path(given).stem)
                element.attrib[key] = self._name(source, is_model=element.tag == "model")

    def _fill_includes(self, element: ET.Element, folder: Path, chain: tuple[Path, ...]) -> None:
        """Put what included files hold in the place of each <include>."""
        children: list[ET.Element] = []
        for child in list(element):
            self.included_from[child] = folder
            if child.tag != "include":
                self._fill_includes(child, folder, chain)
                children.append(child)
                continue
            source = self._find(child, child.get("file", ""), "")
            if source is None or source in chain:
                what = "includes itself" if source else f"no such file, as an <include> of {chain[-1].name} names it"
                raise ConfigError(f"asset file {child.get('file')}: {what}")
            included = _parse(source)
            self._fill_includes(included, source.parent, (*chain, source))
            children += list(included)
        element[:] = children

    def _find(self, element: ET.Element, given: str, directory: str) -> Path | None:
        places = (self.base / directory / given, self.included_from.get(element, self.base) / given)
        return next((Path(os.path.abspath(place)) for place in places if place.is_file()), None)

    def _name(self, source: Path, is_model: bool) -> str:
        """The name that a file gets; a model that is attached becomes one without further files, too."""
        if source not in self.names:
            files = self.mjcf.files
            name = self.names[source] = unique(source.name, [*files, *self.taken])
            files[name] = source
            if is_model:
                attached = read_mjcf(source, [*files, *self.taken])
                files |= attached.files
                files[name] = ET.tostring(attached.root)
        return self.names[source]


def is_urdf(path: Path) -> bool:
    """Whether a file's outermost element is a URDF's.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return next((element.tag for _, element in ET.iterparse(file, ("start",))), None) == "robot"
    except OSError as error:
        raise ConfigError(f"asset file {path}: cannot be read ({error.strerror})") from error
    except (ET.ParseError, LookupError, ValueError):
        return False


def _parse(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except (OSError, ET.ParseError, LookupError, ValueError) as error:
        raise ConfigError(f"asset file {path}: cannot be read ({error})") from error


def unique(name: str, taken: Iterable[str]) -> str:
    """A file's name, with a number where another file has it, whatever the case of its letters."""
    lower = {other.lower() for other in taken}
    stem, suffix = Path(name).stem, Path(name).suffix
    return next(
        candidate
        for number in count(1)
        if (candidate := name if number == 1 else f"{stem}_{number}{suffix}").lower() not in lower
    )


def unnamed(kind: str, number: int, taken: Collection[str]) -> str:
    """The name of an element that the author left unnamed: its kind and number.

    If that is taken, the next free number.
    """
    return next(name for other in count(number) if (name := f"unnamed_{kind}_{other}") not in taken)


def name_all(root: ET.Element) -> None:
    """Name what the author left unnamed, as `RobotModel` does.

    What MuJoCo makes itself, such as the elements of <replicate>, is not in the text. So it cannot be named there.
    """
    sections = {kind: elements(root, kind) for kind in _KINDS}
    sections["actuator"] = [element for section in root.findall("actuator") for element in section]
    for kind, members in sections.items():
        taken = {element.get("name", "") for element in members}
        for number, element in enumerate(members, start=1 if kind == "body" else 0):  # the world is body 0
            if not element.get("name"):
                element.set("name", unnamed(kind, number, taken))
                taken.add(element.attrib["name"])


def elements(root: ET.Element, kind: str) -> list[ET.Element]:
    """Bodies, joints or geoms of an MJCF in MuJoCo's order."""
    return _below(root.findall("worldbody"), _KINDS[kind])


def _below(parents: Iterable[ET.Element], tags: tuple[str, ...]) -> list[ET.Element]:
    """Elements in the order in which MuJoCo numbers them.

    Those of a body, whose parts `parents` are, come before those of its children. Bodies come parents first.
    """
    children = [child for parent in parents for child in _children(parent)]
    bodies = [child for child in children if child.tag == "body"]
    if tags == ("body",):
        return [item for body in bodies for item in (body, *_below([body], tags))]
    own = [child for child in children if child.tag in tags]
    return own + [item for body in bodies for item in _below([body], tags)]


def _children(parent: ET.Element) -> Iterator[ET.Element]:
    """Children of a body; those of a <frame> are its own."""
    for child in parent:
        if child.tag == "frame":
            yield from _children(child)
        else:
            yield child
