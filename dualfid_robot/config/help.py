"""What `--help` prints: a command's header and examples, its groups, and its settings with the comments of their files.

Everything is read from cfg/, so nothing is written twice. Nothing is composed and nothing heavy is imported.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dualfid_robot.config.machine import CONFIG_DIR, DEFAULT_HIGH, OTHER_ENGINE
from dualfid_robot.errors import ConfigError

_WIDEST, _NARROWEST = 120, 60  # characters of a line
_COLUMN, _NARROW_COLUMN = 46, 30  # where comments begin, and where they do on less than 100 characters
_NOT_USED = "not used"  # ends what a command's file says of a group that it only takes along
_EXAMPLE = "$ "  # begins a line of a file's header that is an example's settings
_NO_GROUPS = ("open", "console", "_self_")
_SHOWN = {"simulator/high": DEFAULT_HIGH, "simulator/low": OTHER_ENGINE}  # whose settings stand for `default`


class Setting(NamedTuple):
    """A line of a file: its key with the sections, its value as written there, and its comment."""

    key: str
    value: str
    comment: str


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command line wants to know what there is."""
    return "--help" in arguments or "-h" in arguments


def help_text(name: str, config_name: str, arguments: Sequence[str]) -> str:
    """The help of a command.

    Args:
        name: of the command.
        config_name: its file in cfg/, without its suffix.
        arguments: of the command line; the settings of groups that it names are listed, all groups' for `train`.

    Raises:
        ConfigError: it names an option that a group does not have.
    """
    folders, file = _folders(arguments), CONFIG_DIR / f"{config_name}.yaml"
    header = _header(file)
    chosen = dict(text.split("=", 1) for text in arguments if "=" in text)
    groups = _groups(file)
    called = Path(sys.argv[0])
    program = f"python {called}" if called.suffix == ".py" else f"dualfid {name}"

    # What the command does, and how it is called.
    lines = [*_wrapped(" ".join(line for line in header if not line.startswith(_EXAMPLE))), ""]
    lines += [f"{program} [setting=value …]", ""]
    lines += ["Examples:", *(f"  {program} {line[2:]}".rstrip() for line in header if line.startswith(_EXAMPLE)), ""]

    # Its own settings, then the files to choose from and what each has to set.
    lines += [f"Settings (cfg/{file.name}):", *_rows(explained_settings(file)), ""]
    listed: set[str] = set()
    task = chosen.get("task", groups["task"].value if "task" in groups else "")
    for group, default in groups.items():
        folder = "simulator" if group.startswith("simulator/") else group
        option = chosen.get(group, default.value).replace("${task}", task)
        names = _options(folder, folders)
        lines += _wrapped(f"{group}={option}: {default.comment}".rstrip(": "))
        lines += _titles(folder, names, folders) if folder not in listed else []
        listed.add(folder)
        if name == "train" or group in chosen:
            for each in option.strip("[]").split(","):
                shown = _SHOWN.get(group, each) if each == "default" else each
                if shown not in names:
                    raise ConfigError(f"{group}={shown}: allowed are {sorted(names)}")
                lines += ["", *_section(group, folder, shown, folders)]
        lines.append("")
    return "\n".join([*lines, "--cfg job prints the composed settings, --hydra-help what Hydra adds."])


def explained_settings(path: Path) -> list[Setting]:
    """The settings of a file in its own order, `defaults` left out.

    A setting's comment ends its line and may go on below, further to the right than the key. A setting without one has
    the comment directly above it, at the key's own column.
    """
    text = path.read_text("utf-8")
    return list(_leaves(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "")) if text.strip() else []


def _leaves(node: Any, lines: Sequence[str], before: str) -> Iterator[Setting]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = f"{before}{key.value}"
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _leaves(value, lines, f"{name}.")
        elif name != "defaults":
            first, last = value.start_mark, value.end_mark
            written = "\n".join(lines)[first.index : last.index]
            yield Setting(name, written, _comment(lines, key.start_mark, last))


def _comment(lines: Sequence[str], key: yaml.Mark, end: yaml.Mark) -> str:
    found = []
    rest = lines[end.line][end.column :].strip()
    if rest.startswith("#"):
        found.append(rest)
        for line in lines[end.line + 1 :]:
            if not line.strip().startswith("#") or line.index("#") <= key.column:
                break
            found.append(line)
    else:
        for line in reversed(lines[: key.line]):
            if not line.startswith(" " * key.column + "#"):
                break
            found.insert(0, line)
    return " ".join(line.strip().lstrip("#").strip() for line in found)


def _header(path: Path) -> list[str]:
    """The comment at the head of a file, line by line."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("#").strip())
    return lines


def _groups(path: Path) -> dict[str, Setting]:
    """The groups that a command's file chooses from, with its own choice and what the file says of it."""
    found = {}
    for line in path.read_text("utf-8").partition("\ndefaults:")[2].splitlines()[1:]:
        entry = re.fullmatch(r"  - ([\w/]+): *([^#]*?) *(?:# *(.*))?", line)
        if not line.startswith("  "):
            break
        if entry and entry[1] not in _NO_GROUPS and not (entry[3] or "").endswith(_NOT_USED):
            found[entry[1]] = Setting(entry[1], entry[2], entry[3] or "")
    return found


def _folders(arguments: Sequence[str]) -> list[Path]:
    """cfg/ and the user's folder, where `--config-dir` names one."""
    given = re.search(r"(?:^|\0)(?:--config-dir|-cd)[=\0]([^\0]+)", "\0".join(arguments))
    return [CONFIG_DIR, *([Path(given[1])] if given else [])]


def _options(group: str, folders: Sequence[Path]) -> list[str]:
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _file(name: str, folders: Sequence[Path]) -> Path:
    return next(path for folder in folders if (path := folder / f"{name}.yaml").is_file())


def _titles(group: str, names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Each option with the first sentence of its file."""
    found = []
    for name in names:
        title = " ".join(_header(_file(f"{group}/{name}", folders))).partition(". ")[0]
        found += _row(f"  {name}", title.removeprefix(f"{name}: ").removesuffix("."))
    return found


def _section(group: str, folder: str, option: str, folders: Sequence[Path]) -> list[str]:
    """The settings of an option: its own, and those of the files that it begins with."""
    merged: dict[str, Setting] = {}
    files = [f"{folder}/{option}"]
    if group.startswith("simulator/"):
        files.insert(0, f"simulator/common/{group.rpartition('/')[2]}")
    for name in files:
        for setting in _with_defaults(name, folders):
            known = merged.get(setting.key)
            if known is not None and known.comment not in ("", setting.comment):
                comment = f"{known.comment}; {setting.comment}" if setting.comment else known.comment
                setting = setting._replace(comment=comment)
            merged.pop(setting.key.rpartition(".")[0], None)  # an empty section of a common file
            merged[setting.key] = setting
    where = group.replace("/", ".") + (f".{option}" if group == "simulator/low" else "")
    return _rows([setting._replace(key=f"{where}.{setting.key}") for setting in merged.values()])


def _with_defaults(name: str, folders: Sequence[Path]) -> Iterator[Setting]:
    path = _file(name, folders)
    for entry in (yaml.safe_load(path.read_text("utf-8")) or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield from _with_defaults(f"{name.rpartition('/')[0]}/{entry.removesuffix('@_here_')}", folders)
    yield from explained_settings(path)


def _rows(settings: Sequence[Setting]) -> list[str]:
    return [line for setting in settings for line in _row(f"  {setting.key}={_value(setting.value)}", setting.comment)]


def _value(written: str) -> str:
    """A value without the interpolation that looks it up among the task's."""
    return re.sub(r"^\$\{oc\.select:[^,]*,(.*)\}$", r"\1", written)


def _row(left: str, comment: str) -> list[str]:
    """`left` and its comment in a column of its own, below it where it is too long."""
    column = _COLUMN if _width() >= 100 else _NARROW_COLUMN
    lines = textwrap.wrap(comment, _width() - column)
    if not lines or len(left) >= column - 1:
        return [left, *(f"{'':{column}}{line}" for line in lines)]
    return [f"{left:{column}}{lines[0]}", *(f"{'':{column}}{line}" for line in lines[1:])]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width())


def _width() -> int:
    """Characters of a line: the terminal's, within bounds."""
    return min(max(shutil.get_terminal_size((_WIDEST, 0)).columns, _NARROWEST), _WIDEST)
