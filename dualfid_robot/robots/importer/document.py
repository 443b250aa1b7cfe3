"""An XML document of which every element and attribute is either read or reported."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.decisions import Decisions


class Document:
    """A file's elements, with a memory of what was read of them.

    Attributes:
        path: the file.
        root: its outermost element.
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            ConfigError: it is missing or is no XML.
        """
        self.path = path
        try:
            self.root = ET.fromstring(path.read_bytes().lstrip())
        except (OSError, ET.ParseError, LookupError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error})") from error
        self._read: set[ET.Element | tuple[ET.Element, str]] = {self.root}

    def children(self, element: ET.Element, tag: str) -> list[ET.Element]:
        """All children with a tag."""
        found = element.findall(tag)
        self._read.update(found)
        return found

    def child(self, element: ET.Element, tag: str) -> ET.Element | None:
        """The first child with a tag."""
        found = element.find(tag)
        if found is not None:
            self._read.add(found)
        return found

    def keep(self, element: ET.Element) -> ET.Element:
        """An element that is taken over as it is."""
        for part in element.iter():
            self._read.add(part)
            self._read.update((part, key) for key in part.attrib)
        return element

    def text(self, element: ET.Element, key: str, default: str | None = None) -> str:
        """An attribute.

        Raises:
            ConfigError: it is missing and has no default.
        """
        self._read.add((element, key))
        value = element.get(key, default)
        if value is None:
            raise ConfigError(f"{self.path.name}: {self.place(element)}: <{element.tag}> has no {key}")
        return value

    def numbers(self, element: ET.Element, key: str, count: int, default: str | None = None) -> tuple[float, ...]:
        """An attribute of `count` finite numbers.

        Raises:
            ConfigError: it is missing and has no default, or is something else.
        """
        text = self.text(element, key, default)
        try:
            values = tuple(map(float, text.split()))
        except ValueError:
            values = ()
        if len(values) != count or not all(map(math.isfinite, values)):
            what = "a finite number is" if count == 1 else f"{count} finite numbers are"
            raise ConfigError(
                f"{self.path.name}: {self.place(element)}: {key}='{text}' of <{element.tag}>: {what} expected"
            )
        return values

    def number(self, element: ET.Element, key: str, default: str | None = None) -> float:
        """An attribute that is one finite number; raises as `numbers` does."""
        return self.numbers(element, key, 1, default)[0]

    def place(self, element: ET.Element) -> str:
        """The child of the root that an element belongs to, such as `joint hip`."""
        for top in self.root:
            if element is top or any(part is element for part in top.iter()):
                name = top.get("name") or top.get("reference")
                return f"{top.tag} {name}" if name else str(top.tag)
        return str(self.root.tag)

    def report_unread(self, decisions: Decisions, reasons: dict[str, str]) -> None:
        """Note what was not read.

        Args:
            decisions: where to.
            reasons: why, by the path of an element or attribute below the root, such as `joint/limit@velocity`.
        """
        for path, element, place in self._unread():
            tags = sorted({child.tag for child in element if isinstance(child.tag, str)}) if "@" not in path else []
            content = f" ({', '.join(tags)})" if tags else ""
            known = "there is another before it" if self._is_repeated(element) else reasons.get(path, "not known here")
            decisions.add(f"<{path}>{content} is not used: {known}", place)

    def _is_repeated(self, element: ET.Element) -> bool:
        return any(
            other.tag == element.tag
            for parent in self.root.iter()
            if element in list(parent)
            for other in parent
            if other in self._read
        )

    def _unread(self) -> Iterator[tuple[str, ET.Element, str]]:
        """Path, element and place of each outermost unread element, and of each unread attribute of the others."""
        pending = [(child, str(child.tag), self.place(child)) for child in self.root]
        for key in self.root.attrib:
            if (self.root, key) not in self._read:
                yield f"{self.root.tag}@{key}", self.root, ""
        while pending:
            element, path, place = pending.pop(0)
            if not isinstance(element.tag, str):
                continue
            if element not in self._read:
                yield path, element, place
                continue
            for key in element.attrib:
                if (element, key) not in self._read:
                    yield f"{path}@{key}", element, place
            pending += [(child, f"{path}/{child.tag}", place) for child in element]
