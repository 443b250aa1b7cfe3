"""Commands that the program prints for its user to paste, quoted for Hydra and for the shell."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")  # what Hydra reads as a text as it stands
_WORDS = ("true", "false", "null", "none", "nan", "inf")  # likewise, but not as a text


def quoted(text: str) -> str:
    """A text in Hydra's quotes, whatever stands in it."""
    # Hydra reads backslashes as they are, but for those before a quote and those at the end.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{escaped}'"


def hydra_quoted(text: str) -> str:
    """A text in Hydra's notation: in quotes where it needs them."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else quoted(text)


def setting(key: str, value: str | Path | int) -> str:
    """`key=value` as one word of a shell."""
    text = f"{key}={value if isinstance(value, int) else hydra_quoted(str(value))}"
    quoted = shlex.quote(text)
    # Hydra's quotes are single ones: double ones around them read better, where nothing in the text minds.
    return quoted if quoted == text or set(text) & set('"$`\\!') else f'"{text}"'


def command(name: str, *settings: str) -> str:
    """The command line of an entry point, called as the running one was.

    Args:
        name: such as "train".
        settings: of `setting`.
    """
    called = Path(sys.argv[0])
    if called.suffix == ".py":
        start = ["python", shlex.quote(str(called.with_name(f"{name}.py")))]
    else:
        start = [called.name.split()[0], name]
    return " ".join([*start, *settings])
