"""The network of policy.hpp against onnxruntime with one thread, and the time of a whole control step in C++.

    python benchmarks/policy_header.py FOLDER [FOLDER …]    # of export.py

Both networks are called from Python, in turn, on one observation. The calls' own overhead is part of both (about 1 µs
for the header, through ctypes). The control step (`Controller::act`: observation, network, action) is timed inside C++.

Target: the header is at least as fast.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from pathlib import Path

import numpy as np
from timing import measure_in_turn

from dualfid_robot.export.cpp.compiled_header import compile_cpp
from dualfid_robot.export.cpp.header import write_header
from dualfid_robot.onboard.runtime import ExportedPolicy

STEPS = 20_000
SOURCE = r"""
#include <chrono>

#include "policy.hpp"

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void run_network(const float* observation, float* action) { dualfid_policy::forward(observation, action); }

EXPORTED void time_steps(int steps, double* seconds) {
    static dualfid_policy::Controller controller;
    dualfid_policy::State state{};
    for (int i = 0; i < dualfid_policy::kNq; ++i) state.qpos[i] = i == 3 ? 1.0F : 0.01F * static_cast<float>(i);
    controller.begin(state);
    for (int step = 0; step < steps; ++step) {
        state.qvel[0] = 0.001F * static_cast<float>(step % 100);
        const auto begun = std::chrono::steady_clock::now();
        controller.act(state);
        seconds[step] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    }
}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5000, help="timed calls of each network")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        policy = ExportedPolicy(folder)
        print(f"\n{policy.metadata.task}: {policy.metadata.policy.obs_dim} -> {policy.metadata.policy.act_dim}")
        for flags in (["-O2"], ["-O3"], ["-O3", "-march=native"]):
            compare(policy, flags, arguments.rounds)


def compare(policy: ExportedPolicy, flags: list[str], rounds: int) -> None:
    """Print medians for a header compiled with some flags."""
    info = policy.metadata.policy
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name in ("policy.onnx", "observation.onnx"):
            (work / name).symlink_to((policy.folder / name).resolve())
        write_header(policy.metadata, work)
        (work / "timed.cpp").write_text(SOURCE)
        compile_cpp(
            work / "timed.cpp", work / "timed.so", [*flags, "-fvisibility=hidden", "-shared", "-fPIC", "-I", place]
        )
        library = ctypes.CDLL(str(work / "timed.so"))
    observation = np.random.default_rng(0).normal(size=(1, info.obs_dim)).astype(np.float32)
    action = np.zeros((1, info.act_dim), np.float32)
    pointers = observation.ctypes.data_as(ctypes.c_void_p), action.ctypes.data_as(ctypes.c_void_p)
    seconds = measure_in_turn(
        {"header": lambda: library.run_network(*pointers), "onnxruntime": lambda: policy.action(observation)}, rounds
    )
    assert np.abs(action - policy.action(observation)).max() < 1e-5
    steps = np.zeros(STEPS)
    library.time_steps(STEPS, steps.ctypes.data_as(ctypes.c_void_p))
    median, late = np.percentile(steps, (50, 99))
    print(
        f"  {' '.join(flags):18s} network: header {1e6 * seconds['header']:6.2f} µs, "
        f"onnxruntime {1e6 * seconds['onnxruntime']:6.2f} µs, ratio {seconds['onnxruntime'] / seconds['header']:5.2f}; "
        f"control step p50 {1e6 * median:6.2f} µs, p99 {1e6 * late:6.2f} µs"
    )


if __name__ == "__main__":
    main()
