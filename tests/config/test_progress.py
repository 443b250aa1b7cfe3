"""Progress of long work: in a terminal of 80 columns, and as plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from dualfid_robot.config import progress
from dualfid_robot.config.progress import Progress, track

WORKING = """
import sys, time
from dualfid_robot.config.progress import Progress, track
with Progress("some work") as work:
    work.say("a stage with a name that is too long to fit into one line of a terminal, [so] it is cut")
    print("found: [b] 1")
    time.sleep(0.6)
for _ in track("abc", "counted work", 3):
    time.sleep(0.3)
"""


def test_elsewhere_a_line_comes_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for _ in track(range(6), "evaluation", 6):
        clock[0] += 6.0
    with Progress("export") as work:
        work.say("the network")
        clock[0] += 11.0
        work.say("the robot")
        clock[0] += 100.0
    with Progress("short work") as work:
        clock[0] += 9.0
        work.say("its end")
    assert capsys.readouterr().err.splitlines() == [
        "evaluation, 2 of 6, 0:00:12 so far, about 0:00:24 left",
        "evaluation, 4 of 6, 0:00:24 so far, about 0:00:12 left",
        "evaluation, 6 of 6, 0:00:36 so far, about 0:00:00 left",
        "evaluation: took 0:00:36",
        "export: the robot, 0:00:11 so far",
        "export: took 0:01:51",
    ]


@pytest.mark.parametrize("output", ["terminal", "file"])
def test_a_terminal_of_80_columns_holds_each_line(output: str) -> None:
    """Where standard output goes elsewhere, what is printed goes there and not to the terminal."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    stdout = follower if output == "terminal" else subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", WORKING], stdout=stdout, stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        shown += part
    printed = process.communicate()[0]
    os.close(leader)
    assert process.returncode == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))
    assert max(map(len, lines)) <= 80
    assert any(re.fullmatch(r". some work: a stage with [^…]{30,}… 0:00:0\d\s*", line) for line in lines)
    assert any(re.match(r"counted work ━.* 2/3 0:00:0\d 0:00:0\d left", line) for line in lines)
    last = [re.sub(r"0:00:0\d", "TIME", line) for line in lines if "took" in line]
    assert last == ["some work: took TIME", "counted work: took TIME"]
    assert ("found: [b] 1" in lines) == (output == "terminal")
    assert printed == (None if output == "terminal" else b"found: [b] 1\n")


def test_what_fails_says_nothing_of_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), Progress("work") as work:
        work._has_shown = True
        raise KeyError
    assert capsys.readouterr().err == ""
    assert progress.duration(3661.4) == "1:01:01"
