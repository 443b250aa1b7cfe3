"""`policy.hpp`, compiled with the machine's compiler and run, to compare it with what it was made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.export.cpp.header import HEADER
from dualfid_robot.onboard.runtime import Controller, ExportedPolicy, RobotState

FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror")

# Reads float32 rows from standard input and writes float32 rows to standard output until the input ends.
_DRIVER = r"""
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "policy.hpp"

using namespace dualfid_policy;

namespace {

bool read(float* numbers, int count) {
    const auto wanted = static_cast<std::size_t>(count);
    return std::fread(numbers, sizeof(float), wanted, stdin) == wanted;
}

void write(const float* numbers, int count) {
    std::fwrite(numbers, sizeof(float), static_cast<std::size_t>(count), stdout);
}

State state;
Controller controller;

}  // namespace

int main(int, char** arguments) {
    const float dial = std::strtof(arguments[2], nullptr);
    if (std::strcmp(arguments[1], "forward") == 0) {
        float observation[kObservations], action[kActions];
        while (read(observation, kObservations)) {
            forward(observation, action, dial);
            write(action, kActions);
        }
        return 0;
    }
    controller.dial = dial;
    float commands[kCommands > 0 ? kCommands : 1];
    bool first = true;
    const float width = kObservations;
    write(&width, 1);
    while (read(state.qpos, kNq) && read(state.qvel, kNv) && read(state.contact_wrench, 6 * kContactBodies) &&
           read(commands, kCommands)) {
        if (first) controller.begin(state);
        first = false;
        for (int i = 0; i < kCommands; ++i) controller.set_command(i, commands[i]);
        const float* control = controller.act(state);
        write(controller.observation(), kObservations);
        write(control, kActions);
    }
    return 0;
}
"""


def find_compiler() -> str | None:
    """A C++ compiler of this machine: $CXX, or the first of c++, g++ and clang++."""
    chosen = os.environ.get("CXX")
    found = (shutil.which(name) for name in ([chosen] if chosen else ["c++", "g++", "clang++"]))
    return next(filter(None, found), None)


class CompiledHeader:
    """A program around the `policy.hpp` of a folder; a context manager, which deletes the program at its end."""

    def __init__(self, folder: Path, flags: Sequence[str] = ("-O1",)) -> None:
        """Compile.

        Args:
            folder: with the header in it.
            flags: of the compiler, besides C++17 and all warnings as errors.

        Raises:
            ConfigError: no compiler, or it refuses the header.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="policy_header_")
        source = Path(self._folder.name) / "driver.cpp"
        source.write_text(_DRIVER)
        self._program = source.with_suffix("")
        compile_cpp(source, self._program, [*flags, "-I", str(folder)])

    def __enter__(self) -> CompiledHeader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def forward(self, observations: np.ndarray, dial: float = 1.0) -> np.ndarray:
        """Actions (m, act_dim) of the network for observations (m, obs_dim)."""
        return self._run("forward", dial, observations).reshape(len(observations), -1)

    def run(
        self, states: RobotState, commands: np.ndarray | None = None, dial: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Begin at the first state and act in each.

        Args:
            states: of one robot at T consecutive times: (T, ·).
            commands: (T, commands) in effect at each. It is None where the policy takes none.

        Returns:
            Observations (T, obs_dim) and controls (T, act_dim).
        """
        rows = len(states.qpos)
        parts = [states.qpos, states.qvel, states.contact_wrench, np.zeros((rows, 0)) if commands is None else commands]
        results = self._run("act", dial, np.concatenate([part.reshape(rows, -1) for part in parts], 1))
        obs_dim, rows_of_results = int(results[0]), results[1:].reshape(rows, -1)
        return rows_of_results[:, :obs_dim], rows_of_results[:, obs_dim:]

    def _run(self, mode: str, dial: float, rows: np.ndarray) -> np.ndarray:
        done = subprocess.run(
            [self._program, mode, repr(dial)],
            input=np.ascontiguousarray(rows, np.float32).tobytes(),
            stdout=subprocess.PIPE,
            check=True,
        )
        return np.frombuffer(done.stdout, np.float32)


def check_header(folder: Path, observations: np.ndarray, actions: np.ndarray, dial: float = 1.0) -> float:
    """Largest difference of the header's actions from those given, for the same observations; infinite where one of
    them is NaN.

    Args:
        folder: with the header in it.
        observations: (m, obs_dim); actions: (m, act_dim).

    Raises:
        ConfigError: no compiler, or it refuses the header.
    """
    with CompiledHeader(folder) as header:
        return _difference(header.forward(observations, dial), actions)


def check_controller(
    policy: ExportedPolicy, states: RobotState, commands: np.ndarray | None = None, dial: float = 1.0
) -> float:
    """Largest difference of the header's observations and controls from those of `runtime.Controller`.

    Args:
        policy: with the header in its folder.
        states, commands: as of `CompiledHeader.run`.

    Raises:
        ConfigError: no compiler, or it refuses the header.
    """
    with CompiledHeader(policy.folder) as header:
        observations, controls = header.run(states, commands, dial)
    expected_observations, expected_controls = run_controller(policy, states, commands, dial)
    return max(_difference(observations, expected_observations), _difference(controls, expected_controls))


def run_controller(
    policy: ExportedPolicy, states: RobotState, commands: np.ndarray | None = None, dial: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """What `CompiledHeader.run` returns, by `runtime.Controller`."""
    controller = Controller(policy, 1, dial)
    observations, controls = [], []
    for row in range(len(states.qpos)):
        one = slice(row, row + 1)
        state = RobotState(states.qpos[one], states.qvel[one], states.contact_wrench[one])
        if row == 0:
            controller.begin(state)
        for column, command in enumerate(policy.metadata.commands):
            if commands is not None:
                controller.memory[command.memory][:, command.column] = commands[row, column]
        controls.append(controller.act(state).copy())
        observations.append(controller.observation.copy())
    return np.concatenate(observations), np.concatenate(controls)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    largest = float(np.abs(found - expected).max())
    return np.inf if np.isnan(largest) else largest


def compile_cpp(source: Path, program: Path, flags: Sequence[str]) -> None:
    """Compile one file as C++17 with all warnings as errors.

    Raises:
        ConfigError: no compiler, or it refuses the file.
    """
    compiler = find_compiler()
    if compiler is None:
        raise ConfigError(f"format=cpp: no C++ compiler to check {HEADER} with; install one or set CXX")
    done = subprocess.run([compiler, *FLAGS, *flags, str(source), "-o", str(program)], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.splitlines()
        line = next((line for line in lines if "error" in line), lines[-1] if lines else "no message")
        raise ConfigError(f"format=cpp: {compiler} refuses {HEADER}: {line[:300]}")
