"""What export.py writes, against formulas in double precision, and what it refuses."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dualfid_robot.config.command_line import _as_list
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.envs.registry import task_names
from dualfid_robot.envs.task import Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.export import description, exporter, networks
from dualfid_robot.export import launch as export_module
from dualfid_robot.export.cpp.header import write_header
from dualfid_robot.export.graphs import write_graphs
from dualfid_robot.export.launch import export, launch_export
from dualfid_robot.export.request import ExportRequest
from dualfid_robot.onboard import runtime
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import Controller, ExportedPolicy, RobotState
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.saved_policy import load_policy
from dualfid_robot.train import launch as launch_module

ROOT = Path(__file__).parents[2]

ExportOf = Callable[..., Path]
Weights = list[tuple[np.ndarray, np.ndarray]]


def checkpoint_of(folder: Path) -> DualActorCritic:
    """The policy that an export was made of."""
    return load_policy(folder.parent / "checkpoint.pth")[1]


def observations_for(policy: DualActorCritic, rows: int) -> np.ndarray:
    """Observations (rows, obs_dim) as wide as the normaliser's statistics, and some beyond its bound."""
    rng = np.random.default_rng(0)
    mean, std = policy.normalizer.mean.numpy(), np.sqrt(policy.normalizer.var.numpy())
    noise = rng.normal(size=(rows, len(mean))) * rng.choice([1.0, 20.0], size=(rows, 1))
    return (mean + std * noise)[:, : policy.num_actor_obs].astype(np.float32)


def weights_at(policy: DualActorCritic, dial: float) -> Weights:
    """W + λ·s·B·A and b + λ·δb of every layer of the actor, in double precision. The last one may give a value too."""
    weights = []
    for layer in policy.actor.dual_layers():
        w, b, lora_b, change = (
            p.detach().double().numpy() for p in (layer.weight, layer.bias, layer.lora_b, layer.bias_delta)
        )
        low_rank = lora_b if layer.lora_a is None else layer.scaling * lora_b @ layer.lora_a.detach().double().numpy()
        weights.append((w + dial * low_rank, b + dial * change))
    weights[-1] = (weights[-1][0][: policy.num_actions], weights[-1][1][: policy.num_actions])
    return weights


def by_hand(policy: DualActorCritic, observations: np.ndarray, dial: float, normalised: int = 1) -> np.ndarray:
    """The actor in double precision: ELU layers on the observation, normalised so many times."""
    x = observations.astype(np.float64)
    columns = slice(0, policy.num_actor_obs)
    mean, var = policy.normalizer.mean.numpy()[columns], policy.normalizer.var.numpy()[columns]
    for _ in range(normalised):
        x = np.clip((x - mean) / np.sqrt(var + 1e-5), -5.0, 5.0)
    weights = weights_at(policy, dial)
    for i, (w, b) in enumerate(weights):
        x = x @ w.T + b
        if i < len(weights) - 1:
            x = np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))
    return x


def test_the_normaliser_acts_exactly_once(export_of: ExportOf) -> None:
    folder = export_of("Ant", policy="dial")
    policy = checkpoint_of(folder)
    observations = observations_for(policy, 500)
    action = ExportedPolicy(folder).action(observations)
    np.testing.assert_allclose(action, by_hand(policy, observations, 1.0), atol=5e-5)
    for times in (0, 2):
        assert np.abs(action - by_hand(policy, observations, 1.0, normalised=times)).mean() > 0.1


@pytest.mark.parametrize("name", ["adapted", "base"])
def test_one_policy_is_exported_and_not_the_other(export_of: ExportOf, name: str) -> None:
    folder = export_of("Cartpole", policy=name)
    policy = checkpoint_of(folder)
    observations = observations_for(policy, 300)
    own, other = (1.0, 0.0) if name == "adapted" else (0.0, 1.0)
    action = ExportedPolicy(folder).action(observations)
    np.testing.assert_allclose(action, by_hand(policy, observations, own), atol=2e-5)
    assert np.abs(action - by_hand(policy, observations, other)).max() > 0.05
    metadata = ExportedPolicy(folder).metadata
    assert metadata.policy.head == name
    assert metadata.policy.lora.merged == (name == "adapted")


@pytest.mark.parametrize("dial", [0.0, 0.35, 1.0, 1.3, 1.5])
def test_the_dial_scales_the_adapter(export_of: ExportOf, dial: float) -> None:
    """π_λ = W + λ·s·B·A; Ant's action head is a full-rank layer, whose difference is B itself."""
    folder = export_of("Ant", policy="dial")
    policy = checkpoint_of(folder)
    assert policy.actor.output_layer.lora_a is None
    observations = observations_for(policy, 300)
    expected = by_hand(policy, observations, dial)
    np.testing.assert_allclose(ExportedPolicy(folder).action(observations, dial), expected, atol=5e-5)
    with networks.quiet():
        script = torch.jit.load(folder / "policy.pt")
    with torch.no_grad():
        action = script(torch.from_numpy(observations), torch.tensor([dial])).numpy()
    np.testing.assert_allclose(action, expected, atol=5e-5)


@pytest.mark.parametrize(("name", "dials"), [("adapted", (1.0,)), ("dial", (0.0, 0.6))])
def test_one_network_for_actor_and_critic(export_of: ExportOf, name: str, dials: tuple[float, ...]) -> None:
    """The value stays out of the export."""
    folder = export_of("Cartpole", "train.params.network.separate=false", policy=name)
    policy = checkpoint_of(folder)
    assert policy.critic is policy.actor
    observations = observations_for(policy, 200)
    for dial in dials:
        given = (dial,) if name == "dial" else ()
        action = ExportedPolicy(folder).action(observations, *given)
        np.testing.assert_allclose(action, by_hand(policy, observations, dial), atol=2e-5)


def test_a_layer_at_dial_0_is_the_base_layer_to_the_bit() -> None:
    torch.manual_seed(0)
    w, b, a, lora_b, change = (torch.randn(*s) for s in ((7, 5), (7,), (2, 5), (7, 2), (7,)))
    x = torch.randn(9, 5)
    layer = networks.DialLinear(w, b, a, lora_b, change, 1.7)
    assert torch.equal(layer(x, torch.zeros(1)), nn.functional.linear(x, w, b))


def test_any_number_of_robots(export_of: ExportOf) -> None:
    folder = export_of("Ant", policy="dial")
    exported = ExportedPolicy(folder)
    observations = observations_for(checkpoint_of(folder), 257)
    together = exported.action(observations, 1.2)
    for rows in (slice(0, 1), slice(5, 8), slice(100, 257)):
        np.testing.assert_allclose(exported.action(observations[rows], 1.2), together[rows], atol=2e-5)


def test_the_files_need_nothing_but_onnx_itself(export_of: ExportOf) -> None:
    folder = export_of("Ant", policy="dial")
    files = sorted(folder.glob("*.onnx"))
    assert [file.name for file in files] == ["episode.onnx", "observation.onnx", "policy.onnx"]
    opset = ExportedPolicy(folder).metadata.policy.opset
    for file in files:
        model = onnx.load(file, load_external_data=False)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        assert not model.functions and {node.domain for node in model.graph.node} == {""}
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert str(ROOT).encode() not in file.read_bytes()
    session = onnxruntime.InferenceSession(folder / "policy.onnx")
    assert [(node.name, node.shape[1:], node.type) for node in session.get_inputs()] == [
        ("observation", [60], "tensor(float)"),
        ("dial", [], "tensor(float)"),
    ]
    assert [(node.name, node.shape[1:]) for node in session.get_outputs()] == [("action", [8])]


def test_the_metadata_stands_inside_the_network_and_beside_it(export_of: ExportOf) -> None:
    folder = export_of("Ant", policy="dial")
    text = (folder / "policy.json").read_text()
    model = onnx.load(folder / "policy.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {runtime.METADATA_KEY: text}
    metadata = Metadata.from_json(text, "policy.json")
    assert metadata.to_json() == text
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums.keys() == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert checked.returncode == 0


def test_what_the_metadata_says_of_ant(export_of: ExportOf) -> None:
    metadata = ExportedPolicy(export_of("Ant", policy="dial")).metadata
    assert metadata.task == "Ant"
    assert metadata.timing.control_dt == 1 / 60 and metadata.timing.physics_dt == 1 / 480
    assert metadata.timing.decimation == 8
    assert sum(term.dim * term.history for term in metadata.observation) == metadata.policy.obs_dim == 60
    wrench = next(term for term in metadata.observation if term.name == "foot_wrench")
    assert (wrench.scale, wrench.clip, wrench.noise) == (0.1, 5.0, 0.0)
    assert [source.partition("[")[0] for source in wrench.sources] == ["qpos", "contact_wrench"]
    assert (metadata.action.scale, metadata.action.offset) == ((1.0,) * 8, (0.0,) * 8)
    assert [joint.type for joint in metadata.joints] == ["free"] + ["hinge"] * 8
    assert {actuator.kind for actuator in metadata.actuators} == {"motor"}
    assert metadata.policy.dial is not None and metadata.policy.dial.high == 1.5
    assert (metadata.training.seed, metadata.training.iterations) == (42, 3)
    assert metadata.training.cost_seconds == 1.25 and metadata.training.share_history == ()
    assert metadata.training.fidelity_trained_on == "both"
    assert metadata.training.engines["low"]["mujoco_reduced"]["contacts"] == "feet"
    assert metadata.training.calibration["pybullet"]["friction"] == 0.8874
    assert metadata.training.versions["export"]["torch"] == torch.__version__
    found = metadata.verification
    assert found.observations_random == 10_000 and found.observations_visited == 1_000
    assert 0.0 < found.onnx <= 1e-5 and found.torchscript is not None and 0.0 < found.torchscript <= 1e-5
    assert found.observation <= 1e-4


def test_the_stored_sample_is_an_observation_that_was_visited_and_its_action(export_of: ExportOf) -> None:
    folder = export_of("Cartpole")
    exported = ExportedPolicy(folder)
    sample = exported.metadata.sample
    observation = np.array([sample.observation])
    np.testing.assert_allclose(by_hand(checkpoint_of(folder), observation, 1.0)[0], sample.action, atol=1e-5)
    visited = exported.metadata.visited
    assert visited.position_low[0] is not None and visited.position_high[0] is not None
    assert visited.position_low[0] <= observation[0, 0] <= visited.position_high[0]


def test_the_measured_returns_are_those_of_the_stored_starts(export_of: ExportOf) -> None:
    """Another pool of one world at a time gives each return again: rewards by episode.onnx, physics by MuJoCo."""
    import mujoco

    folder = export_of("Cartpole")
    exported = ExportedPolicy(folder)
    metadata = exported.metadata
    evaluation = metadata.evaluations["mujoco"]
    starts = np.load(folder / "starts.npz")
    model = mujoco.MjModel.from_xml_path(str(folder / metadata.robot.file))
    model.opt.timestep, model.opt.integrator = metadata.timing.physics_dt, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    assert len(evaluation.returns) == len(starts["qpos"]) == 4
    for i, expected in enumerate(evaluation.returns):
        data, controller, total, steps = mujoco.MjData(model), Controller(exported), 0.0, 0
        data.qpos[:], data.qvel[:] = starts["qpos"][i], starts["qvel"][i]

        def measured(data: Any = data) -> RobotState:
            arrays = (data.qpos[None].astype(np.float32), data.qvel[None].astype(np.float32))
            return RobotState(*arrays, np.zeros((1, 0, 6), np.float32))

        controller.begin(measured())
        for _ in range(metadata.episode_length):
            previous = measured().qpos
            data.ctrl[:] = controller.act(measured())[0]
            for _ in range(metadata.timing.decimation):
                mujoco.mj_step(model, data)
            outcome = controller.judge(previous, measured())
            total, steps = total + float(outcome["reward"][0]), steps + 1
            if outcome["terminated"][0]:
                break
        assert steps == evaluation.lengths[i]
        assert total == pytest.approx(expected, abs=1e-3)


# --- what is refused -------------------------------------------------------------------------------------------------


def config(**values: Any) -> DictConfig:
    return OmegaConf.merge(OmegaConf.load(CONFIG_DIR / "export.yaml"), values)  # type: ignore[return-value]


@pytest.fixture
def checkpoint(export_of: ExportOf, tmp_path: Path) -> Path:
    """A checkpoint of Cartpole in a folder with nothing else."""
    path: Path = shutil.copy(export_of("Cartpole").parent / "checkpoint.pth", tmp_path / "checkpoint.pth")
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "tflite"}, r"format=tflite: allowed are \['onnx', 'torchscript', 'cpp'\]"),
        ({"format": ["onnx", "coreml"]}, "format=coreml: allowed are"),
        ({"policy": "both"}, r"policy=both: allowed are \['adapted', 'base', 'dial'\]"),
        ({"num_envs": 1}, "num_envs=1: must be a whole number of at least 2"),
        ({"num_envs": 2.5}, "num_envs=2.5: must be a whole number of at least 2"),
        ({"seed": "first"}, "seed=first: must be a whole number from 0 to"),
        ({"simulator": "chrono"}, "simulator=chrono: allowed are"),
        ({"simulators": "chrono", "num_envs": 2}, "simulators=chrono: allowed are"),
    ],
)
def test_a_wrong_setting_leaves_nothing_behind(checkpoint: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        launch_export(config(checkpoint=str(checkpoint), **values))
    assert "\n" not in str(refused.value)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.pth"]


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the policy to export"):
        launch_export(config())
    with pytest.raises(ConfigError, match="no such file"):
        launch_export(config(checkpoint=str(tmp_path / "last.pth")))
    torch.save({"weights": 1}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="not written by dualfid_robot"):
        launch_export(config(checkpoint=str(tmp_path / "other.pth")))
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


def test_a_folder_that_is_no_export_is_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not an export"):
        launch_export(config(checkpoint=str(checkpoint), out=str(tmp_path / "own")))
    assert (tmp_path / "own" / "thesis.txt").read_text() == "years of work"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(ConfigError, match=r'onnxscript is not installed; pip install "dualfid_robot\[export\]"'):
        launch_export(config(checkpoint=str(checkpoint)))


def test_training_does_not_begin_without_the_packages(
    monkeypatch: pytest.MonkeyPatch, compose_config: Callable[..., DictConfig]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(launch_module, "Experiment", None)
    with pytest.raises(ConfigError, match=r'pip install "dualfid_robot\[export\]"'):
        launch_module.launch(compose_config("task=Cartpole", "export=True", "simulator/low=mujoco_reduced"))


def test_the_best_policy_is_exported_when_it_is_new_and_time_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, made = [100.0], []

    def exported(checkpoint: Path, request: ExportRequest, folder: Path) -> None:
        made.append((checkpoint.read_text(), request.graphs))
        clock[0] += 2.0
        if checkpoint.read_text() == "broken":
            raise ConfigError("policy.onnx differs")
        if checkpoint.read_text() == "no room":
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(export_module, "export", exported)
    monkeypatch.setattr(export_module.time, "monotonic", lambda: clock[0])
    checkpoint, folder = tmp_path / "nn" / "Ant.pth", tmp_path / "export"
    checkpoint.parent.mkdir()
    best = export_module.BestExport(checkpoint)
    best(False)
    best(True)
    assert made == [] and "no best policy was saved" in caplog.text

    def save(text: str, when: int) -> None:
        checkpoint.write_text(text)
        os.utime(checkpoint, (when, when))

    save("first", 1)
    best(False)
    best(False)
    assert made == [("first", None)]
    save("second", 2)
    clock[0] += 19.0
    best(False)  # the first took 2 s: not before 20 s have passed
    assert len(made) == 1
    clock[0] += 2.0
    best(False)
    assert made[1:] == [("second", folder)]  # whose graphs are those of the first
    save("broken", 3)
    best(True)  # at the end nothing waits; and what fails does not end the training
    assert made[2:] == [("broken", folder)] and "policy.onnx differs" in caplog.text
    save("no room", 4)
    best(True)
    assert f"export=True: {folder}: No space left on device" in caplog.text


@pytest.mark.parametrize("name", [None, "policy.onnx"])
def test_a_full_disk_names_the_export_and_leaves_the_old_one(name: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "SHA256SUMS").touch()
    with pytest.raises(OSError, match="No space left") as refused, export_module._in_place_of(folder) as new:
        (new / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device", name and str(new / name))
    assert refused.value.filename == str(folder)
    assert list(tmp_path.iterdir()) == [folder] and [path.name for path in folder.iterdir()] == ["SHA256SUMS"]


def test_a_file_that_is_missing_elsewhere_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused, export_module._in_place_of(tmp_path / "export"):
        (tmp_path / "mesh.obj").read_bytes()
    assert refused.value.filename == str(tmp_path / "mesh.obj") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "seen"),
    [
        ("format=onnx,cpp", "format=[onnx,cpp]"),
        ("format=onnx", "format=onnx"),
        ("format=[onnx,cpp]", "format=[onnx,cpp]"),
        ("policy=a,b", "policy=a,b"),
        ("--multirun", "--multirun"),
    ],
)
def test_several_values_of_one_setting_are_no_sweep(argument: str, seen: str) -> None:
    assert _as_list(argument, ("format", "simulators")) == seen


def test_without_a_compiler_cpp_is_left_out_or_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert export_module.choose_formats(["torchscript"]) == ("onnx", "torchscript")
    assert export_module.choose_formats(["cpp"]) == ("onnx", "cpp")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert export_module.choose_formats() == ("onnx", "torchscript")
    assert "no C++ compiler" in caplog.text
    with pytest.raises(ConfigError, match=r"format=cpp: no C\+\+ compiler"):
        export_module.choose_formats(["onnx", "cpp"])


def _one_weight_off(network: nn.Module) -> None:
    with torch.no_grad():
        next(module for module in network.modules() if isinstance(module, nn.Linear)).weight[0, 0] += 0.01


def _wrong_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(network: nn.Module, obs_dim: int, path: Path) -> None:
        _one_weight_off(network)
        networks.write_network_onnx(network, obs_dim, path)

    monkeypatch.setattr(exporter, "write_network_onnx", write)


def _wrong_torchscript(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(network: nn.Module, obs_dim: int, path: Path) -> None:
        _one_weight_off(network)
        networks.write_torchscript(network, obs_dim, path)

    monkeypatch.setattr(exporter, "write_torchscript", write)


def _wrong_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(task: Task, folder: Path) -> None:
        observe = task.observe
        monkeypatch.setattr(task, "observe", lambda state: {k: 1.01 * v for k, v in observe(state).items()})
        write_graphs(task, folder)

    monkeypatch.setattr(exporter, "write_graphs", write)


def _wrong_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(metadata: Metadata, folder: Path) -> None:
        path = write_header(metadata, folder)
        before, array, after = path.read_text().partition("float kNetwork2[] = {")
        path.write_text(before + array + re.sub(r"-?\d\.\d+", "0.75", after, count=1))

    monkeypatch.setattr(exporter, "write_header", write)


def _wrong_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = description._action

    monkeypatch.setattr(description, "_action", lambda task: dataclasses.replace(honest(task), offset=(0.5,)))


def _wrong_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = description._sample

    def sample(*arguments: Any) -> Any:
        stored = honest(*arguments)
        return dataclasses.replace(stored, action=tuple(value + 0.001 for value in stored.action))

    monkeypatch.setattr(description, "_sample", sample)


def _wrong_return(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = exporter.run_exported

    def run(*arguments: Any) -> Any:
        run = honest(*arguments)
        run.evaluation.returns[:] += 5.0
        return run

    monkeypatch.setattr(exporter, "run_exported", run)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_wrong_onnx, "policy.onnx differs from the checkpoint by"),
        (_wrong_torchscript, "policy.pt differs from the checkpoint by"),
        (_wrong_graph, "observation.onnx and action mapping in mujoco differs from the checkpoint by"),
        (_wrong_header, "policy.hpp"),
        (_wrong_mapping, "observation.onnx and action mapping in mujoco differs from the checkpoint by"),
        (_wrong_sample, "policy.onnx on the stored sample differs from the checkpoint by 0.001"),
        (_wrong_return, "the exported files' return in mujoco"),
    ],
)
def test_what_differs_is_named_and_nothing_is_left_behind(
    checkpoint: Path,
    export_of: ExportOf,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[pytest.MonkeyPatch], None],
    message: str,
) -> None:
    formats = ("onnx", "cpp" if spoil is _wrong_header else "torchscript")
    graphs = None if spoil is _wrong_graph else export_of("Cartpole")
    request = ExportRequest(formats, num_envs=2, graphs=graphs)
    earlier = checkpoint.parent / "export"
    earlier.mkdir()
    (earlier / "policy.json").write_text("of an earlier export")
    runtime.write_sums(earlier)
    spoil(monkeypatch)
    with pytest.raises(ConfigError) as refused:
        export(checkpoint, request, earlier)
    assert message in str(refused.value) and "nothing was exported" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint.pth", "export"]
    assert (earlier / "policy.json").read_text() == "of an earlier export"


def test_an_export_takes_the_place_of_an_earlier_one_and_measures_further_engines(
    checkpoint: Path, export_of: ExportOf
) -> None:
    folder = checkpoint.parent / "export"
    shutil.copytree(export_of("Cartpole"), folder)
    assert (folder / "policy.pt").exists()
    request = ExportRequest(("onnx",), "base", num_envs=2, simulators=("mujoco_reduced",), graphs=export_of("Cartpole"))
    export(checkpoint, request, folder)
    assert not (folder / "policy.pt").exists()
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint.pth", "export"]
    metadata = ExportedPolicy(folder).metadata
    assert metadata.policy.head == "base"
    assert list(metadata.evaluations) == ["mujoco", "mujoco_reduced"]
    assert metadata.evaluations["mujoco_reduced"].simulator["contacts"] == "feet"


# --- the command line and training -----------------------------------------------------------------------------------

RunScript = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_the_command_line(run_script: RunScript, checkpoint: Path) -> None:
    done = run_script("export.py", f"checkpoint={checkpoint}", "format=onnx,torchscript", "policy=dial", "num_envs=4")
    assert done.returncode == 0, done.stderr
    assert "policy.onnx: largest difference" in done.stdout and "Traceback" not in done.stderr
    folder = checkpoint.parent / "export"
    assert (folder / "policy.pt").is_file() and not (folder / "policy.hpp").exists()
    assert ExportedPolicy(folder).metadata.policy.head == "dial"
    refused = run_script("export.py", f"checkpoint={checkpoint}", "format=onnx,tflite")
    assert refused.returncode == 2
    assert refused.stderr.strip() == "error: format=tflite: allowed are ['onnx', 'torchscript', 'cpp']"


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names())
def test_every_task_can_be_exported(export_of: ExportOf, task: str) -> None:
    metadata = ExportedPolicy(export_of(task)).metadata
    assert metadata.task == task
    assert {command.memory for command in metadata.commands} <= {entry.name for entry in metadata.memory}


@pytest.mark.slow
def test_training_exports_its_best_policy_and_is_none_the_worse(run_script: RunScript, tmp_path: Path) -> None:
    config_ = "train.params.config"
    arguments = ["task=Cartpole", "num_envs=64", "max_iterations=5", "simulator/low=mujoco_reduced", "seed=3"]
    arguments += [f"{config_}.save_best_after=0", f"{config_}.save_frequency=2", "task.env.episodeLength=20"]
    arguments += ["allocation=fixed", f"{config_}.minibatch_size=256"]
    histories = []
    for exporting in (False, True):
        done = run_script("train.py", *arguments, f"export={exporting}", f"experiment=run{exporting}")
        assert done.returncode == 0, done.stderr
        run = next((tmp_path / "runs").glob(f"run{exporting}_*"))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        histories.append([(row["return/high"], row["policy/entropy"]) for row in rows])
        assert (run / "export").is_dir() == exporting
    assert histories[0] == histories[1]
    metadata = ExportedPolicy(run / "export").metadata
    best = torch.load(run / "nn" / "Cartpole.pth", weights_only=True)
    assert metadata.training.iterations == best["iteration"]
    assert len(metadata.training.share_history) == best["iteration"]
    assert metadata.training.versions["training"]["torch"] == torch.__version__
    np.testing.assert_allclose(
        ExportedPolicy(run / "export").action(np.array([metadata.sample.observation], np.float32))[0],
        metadata.sample.action,
        atol=1e-5,
    )
    refused = run_script("train.py", *arguments, "export=perhaps")
    assert refused.returncode == 2 and "export=perhaps: True or False is expected" in refused.stderr
