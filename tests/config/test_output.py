"""What is printed ends no program, and hints can be pasted."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from dualfid_robot.config import hints
from dualfid_robot.config.hints import command, setting

PRINTING = """
import sys, time
from dualfid_robot.config.output import make_output_safe, plain_console
make_output_safe()
for _ in range(3):
    plain_console().print("share ρ of [/b] :smile: 漢", soft_wrap=True)
    print("plain ρ")
sys.stdout.flush()
sys.stderr.write("end\\n")
"""


def printing(**options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PRINTING], stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"share rho of [/b] :smile: ?\nplain rho\n"),
        ("latin-1", b"share rho of [/b] :smile: ?\nplain rho\n"),
        ("utf-8", "share ρ of [/b] :smile: 漢\nplain ρ\n".encode()),
    ],
)
def test_letters_that_an_encoding_lacks_are_spelled_out(encoding: str, expected: bytes) -> None:
    process = printing(stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": encoding})
    output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == (3 * expected, b"end\n", 0)


def test_files_are_read_as_utf_8_whatever_the_locale_says() -> None:
    bare = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "dualfid_robot", "train", "simulator/high=mujoco", "--help"]
    process = subprocess.run(command, capture_output=True, env=bare, timeout=60)
    assert (process.returncode, process.stderr) == (0, b"") and b"simulator.high.substeps=" in process.stdout


def test_a_broken_pipe_is_said_once_and_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = printing(stdout=writer)
    os.close(writer)
    _, errors = process.communicate(timeout=60)
    expected = b"the standard output cannot be written any more (Broken pipe); going on\nend\n"
    assert (errors, process.returncode) == (expected, 0)


def test_a_full_or_closed_output_ends_nothing() -> None:
    with open("/dev/full", "w") as full:
        process = printing(stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and errors.endswith(b"(No space left on device); going on\nend\n")
    closed = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c {shlex.quote(PRINTING)} >&-"], stderr=subprocess.PIPE, timeout=60
    )
    assert (closed.stderr, closed.returncode) == (b"end\n", 0)


@given(
    st.text(
        st.one_of(st.sampled_from("\\'\"=[]{}(), :%ü#*a1-.~"), st.characters(exclude_categories=("C",))), min_size=1
    )
)
@example("a\\'b\\")
@example("true")
@example("12")
@example("run [1] = 'ü'")
def test_a_setting_survives_the_shell_and_hydra(text: str) -> None:
    (word,) = shlex.split(setting("experiment", text))
    assert OverridesParser.create().parse_override(word).value() == text


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("train.py", "python evaluate.py checkpoint=runs/x"),
        ("/a b/train.py", "python '/a b/evaluate.py' checkpoint=runs/x"),
        ("dualfid train", "dualfid evaluate checkpoint=runs/x"),
    ],
)
def test_commands_are_called_as_the_running_one_was(
    called: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints.sys, "argv", [called])
    assert command("evaluate", setting("checkpoint", "runs/x")) == expected
