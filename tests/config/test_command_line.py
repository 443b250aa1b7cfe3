"""The command line: help, IsaacGymEnvs' settings, wrong input, fuzzed settings."""

from __future__ import annotations

import copy
import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.cli import _usage
from dualfid_robot.config.command_line import describe, is_out_of_memory
from dualfid_robot.config.engines import compose_config as composed
from dualfid_robot.config.engines import compose_with_choices, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.faulty_file import faulty_file
from dualfid_robot.config.help import explained_settings
from dualfid_robot.config.machine import ASSETS, CONFIG_DIR
from dualfid_robot.errors import ConfigError

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


SCRIPTS = sorted(path.name for path in ROOT.glob("*.py") if path.name != "setup.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains(script: str, run_script: Run) -> None:
    """A header, five examples, and every setting of the command's file."""
    result = run_script(script, "--help")
    assert result.returncode == 0 and not result.stderr, result.stderr
    text = result.stdout
    assert re.match(r"[A-Z][^\n]{20,}", text)
    examples = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 5 and all(script.removesuffix(".py") in example for example in examples)
    file = {"train.py": "config.yaml"}.get(script, script.replace(".py", ".yaml"))
    for setting in explained_settings(CONFIG_DIR / file):
        assert f"  {setting.key}=" in text and setting.comment.split()[0] in text


def test_help_fits_into_80_columns(run_script: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be broken is: a key with its value cannot, and an example is to be pasted."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = run_script("train.py", "--help").stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and not re.match(r"  (python|[\w.]+=)", line)] == []
    assert "  experiment=''               name of the run's folder under runs/; empty: the" in lines
    assert max(map(len, _usage().splitlines())) <= 80


def test_help_leaves_out_what_a_command_does_not_use(run_script: Run) -> None:
    assert "AntPPO" not in run_script("evaluate.py", "--help").stdout


def test_help_lists_the_settings_of_what_the_command_line_names(run_script: Run) -> None:
    text = run_script(
        "train.py", "task=Cartpole", "simulator/low=[mujoco,physx]", "simulator/high=physx", "--help"
    ).stdout
    for line in (
        r"  task\.env\.resetDist=3\.0",
        r"  train\.params\.config\.mini_epochs=8\s+passes over an iteration's samples",
        r"  simulator\.high\.solver=tgs\s+tgs \(temporal Gauss-Seidel\)",
        r"  simulator\.low\.mujoco\.share=null\s+of E_low's environments",
        r"  simulator\.low\.physx\.solver=tgs",
        r"  simulator\.high\.price=1\.0\s+of a second",
        r"  allocation\.rate_limit=1\.0\s+greatest change",
    ):
        assert re.search(f"^{line}", text, re.MULTILINE), line
    refused = run_script("train.py", "task=Foo", "--help")
    assert refused.returncode == 2 and refused.stderr.startswith("error: task=Foo: allowed are ['Ant'")


@pytest.mark.parametrize("name", ["config", "evaluate", "check_task", "calibrate", "play"])
def test_examples_are_command_lines(name: str) -> None:
    with hydra_apart():
        for line in (CONFIG_DIR / f"{name}.yaml").read_text().splitlines():
            if line.startswith("# $ ") and "--config-dir" not in line:
                compose_with_choices(name, line[4:].replace("…", "x").split())


@pytest.mark.parametrize("written", ["key: 3  # why\n", "# why\nkey: 3\n", "key: 3  # why\n        # and how\n"])
def test_comments_of_settings(written: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"# header\n\nbefore: [1, 2]  # else\n{written}after: ''\n")
    how = " and how" if "how" in written else ""
    expected = [("before", "[1, 2]", "else"), ("key", "3", f"why{how}"), ("after", "''", "")]
    assert [tuple(setting) for setting in explained_settings(tmp_path / "a.yaml")] == expected


def test_a_study_without_a_plan_is_refused(run_script: Run) -> None:
    result = run_script("study.py")
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: study: name a plan, such as study=cartpole_small; allowed are [")


def test_entry_points_import_no_heavy_package() -> None:
    code = (
        "import sys; sys.argv = ['train.py', '--help']; from dualfid_robot.cli import train; train(); "
        "print([m for m in ('torch', 'mujoco', 'pybullet', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("task=Foo",), f"error: task=Foo: allowed are {sorted(path.stem for path in CONFIG_DIR.glob('task/*.yaml'))}"),
        (("simulator/low=havok",), "error: simulator/low=havok: allowed are"),
        (("simulator/low=[mujoco,havok]",), "error: simulator/low=havok: allowed are"),
        (("simulator=mujoco",), "error: simulator=mujoco: did you mean simulator/high=mujoco or simulator/low=mujoco?"),
        (("simulator.low=mujoco",), "error: simulator.low=mujoco: did you mean simulator/low=mujoco?"),
        (("train.param=3",), "error: train.param: no such setting; allowed are ['params']"),
        (("allocation=greedy",), "error: allocation=greedy: allowed are"),
        (("task.env.numEnv=3",), "error: task.env.numEnv=3: no such setting; did you mean numEnvs?"),
        (
            ("train.params.config.gama=0.9",),
            "error: train.params.config.gama=0.9: no such setting; did you mean gamma?",
        ),
        (("pipeline=gpu",), "error: pipeline=gpu: does nothing here; the device is chosen with sim_device"),
        (("num_envs=-5",), "error: num_envs=-5: must be a whole number of at least 1"),
        (("num_envs=many",), "error: num_envs=many: must be a whole number of at least 1"),
        (("max_iterations=0",), "error: max_iterations=0: must be a whole number of at least 1"),
        (("sim_device=cuda:99",), "error: sim_device=cuda:99: allowed are ['cpu'"),
        (("viewer=native",), "error: viewer=native: allowed are"),
        (("+gravity=3",), "error: gravity: no such setting; allowed are"),
        (("simulator.high.substeps=-1",), "error: simulator.high.substeps=-1: must be"),
        (
            ("train.params.network.sigma_init=1e30",),
            "error: train.params.network.sigma_init=1e+30: must be a number in",
        ),
        (("test=True",), "error: test=True: name the policy with checkpoint"),
        (("test=True", "agent=lazy"), "error: agent=lazy: allowed are ['policy', 'zero', 'random']"),
        (("agent=zero",), "error: agent=zero: only a policy can be trained; add test=True"),
        (("test=True", "agent=zero", "checkpoint=here"), "error: checkpoint=here: agent=zero needs none"),
        (("checkpoint=runs/nowhere",), "error: checkpoint=runs/nowhere: no such file"),
        (("resume=True",), "error: resume=True: no run with a checkpoint under runs/"),
    ],
)
def test_wrong_input_gives_one_line_and_status_2(
    arguments: tuple[str, ...], message: str, run_script: Run, tmp_path: Path
) -> None:
    result = run_script("train.py", *arguments)
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith(message), result.stderr
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("evaluate.py", (), "error: checkpoint: name the policy to evaluate"),
        ("evaluate.py", ("simulator/low=mujoco",), "error: simulator/low=mujoco: did you mean simulator=mujoco?"),
        (
            "evaluate.py",
            ("agent=zero", "simulator.substep=3"),
            "error: simulator.substep=3: no such setting",
        ),
        ("evaluate.py", ("agent=zero", "task=Foo"), "error: task=Foo: allowed are ["),
        ("evaluate.py", ("agent=zero", "simulator=havok"), "error: simulator=havok: allowed are ["),
        ("evaluate.py", ("agent=zero", "num_envs=0"), "error: num_envs=0: must be a whole number of at least 1"),
        ("evaluate.py", ("agent=zero", "randomize=often"), "error: task.randomize=often: True or False is expected"),
        (
            "evaluate.py",
            ("checkpoint=here", "task=Cartpole"),
            "error: task=Cartpole: a checkpoint's policy is evaluated with its own settings",
        ),
        ("check_task.py", ("task=Foo",), "error: task=Foo: allowed are ["),
        ("check_task.py", ("episodes=few",), "error: episodes=few: must be a whole number of at least 1"),
        (
            "check_task.py",
            ("task.asset.assetFileName=no.xml",),
            f"error: asset file {ASSETS}/no.xml does not exist",
        ),
        ("check_task.py", ("task.asset.feet=[hand]",), "error: feet=['hand']: no such body in ant.xml; it has ["),
        (
            "check_task.py",
            ("task.env.dethCost=1",),
            "error: task.env.dethCost=1: no such setting; did you mean deathCost?",
        ),
    ],
)
def test_wrong_input_to_the_other_entry_points(
    script: str, arguments: tuple[str, ...], message: str, run_script: Run, tmp_path: Path
) -> None:
    result = run_script(script, *arguments)
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith(message), result.stderr
    assert not list(tmp_path.iterdir())


MINE = "defaults: [common/base@_here_, _self_]\nname: Mine\nasset: {assetFileName: %s, feet: []}\nsim: {dt: 0.02}\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"cfg/train/MinePPO.yaml": "", "tasks/mine.py": ""}, "error: task=Mine: allowed are ['"),
        ({"cfg/task/Mine.yaml": MINE % "cartpole.xml", "tasks/mine.py": ""}, "error: train=MinePPO: allowed are ['"),
        (
            {"cfg/task/Mine.yaml": MINE % "cartpole.xml", "cfg/train/MinePPO.yaml": "defaults: [CartpolePPO]\n"},
            "error: task=Mine: allowed are ['",
        ),
        (
            {
                "cfg/task/Mine.yaml": MINE % "cartpole.xml",
                "cfg/train/MinePPO.yaml": "defaults: [CartpolePPO]\n",
                "tasks/mine.py": "class Yours: ...\n",
            },
            "error: task=Mine: {tmp_path}/tasks/mine.py has no class Mine",
        ),
        (
            {
                "cfg/task/Mine.yaml": MINE % "{tmp_path}/mine.xml",
                "cfg/train/MinePPO.yaml": "defaults: [CartpolePPO]\n",
                "mine.xml": "<mujoco><worldbody><body><joint/></body></worldbody></mujoco>",
            },
            "error: asset file {tmp_path}/mine.xml is not a valid MJCF: ",
        ),
        (
            {
                "cfg/task/Mine.yaml": MINE % "{tmp_path}/mine.xml",
                "cfg/train/MinePPO.yaml": "defaults: [CartpolePPO]\n",
                "mine.xml": "<mujoco><worldbody>",
            },
            "error: asset file {tmp_path}/mine.xml is not a valid MJCF: ",
        ),
    ],
)
def test_a_users_task_with_something_missing(
    files: dict[str, str], message: str, run_script: Run, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{tmp_path}", str(tmp_path)))
    result = run_script("check_task.py", "--config-dir", str(tmp_path / "cfg"), "task=Mine")
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith(message.replace("{tmp_path}", str(tmp_path))), result.stderr


def test_isaac_gyms_command_line_is_understood(compose_config: Callable[..., DictConfig]) -> None:
    experiment = Experiment(
        compose_config(
            "task=Cartpole",
            "num_envs=64",
            "seed=7",
            "max_iterations=5",
            "experiment=mine",
            "sim_device=cpu",
            "rl_device=cpu",
            "multi_gpu=False",
            "torch_deterministic=True",
            "task.env.resetDist=2.5",
            "train.params.config.gamma=0.9",
            "train.params.config.minibatch_size=256",
        )
    )
    assert experiment.num_envs == 64 and experiment.seed == 7 and experiment.run.max_epochs == 5
    assert experiment.run_name == "mine" and experiment.ppo.gamma == 0.9
    assert experiment.task.env["resetDist"] == 2.5 and experiment.task.env["numEnvs"] == 64


def test_what_a_task_takes_from_the_common_file_may_be_set(
    compose_config: Callable[..., DictConfig],
) -> None:
    config = compose_config("task=Cartpole", "task.env.clipObservations=10")
    assert Experiment(config).make_task().config.clipObservations == 10.0


def test_too_little_memory_is_told_from_a_fault_of_the_program() -> None:
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**58)
    assert is_out_of_memory(torchs.value) and is_out_of_memory(numpys.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_a_random_seed_is_recorded(compose_config: Callable[..., DictConfig]) -> None:
    seeds = {Experiment(compose_config("task=Cartpole", "seed=-1")).settings["seed"] for _ in range(2)}
    assert len(seeds) == 2 and min(seeds) >= 0


def _leaves(config: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in config:
        path = f"{prefix}{key}"
        value = config[key]
        keys += _leaves(value, f"{path}.") if isinstance(value, DictConfig) else [path]
    return keys


@functools.cache
def small_cartpole() -> DictConfig:
    with hydra_apart():
        return composed(["task=Cartpole", "num_envs=64", "train.params.config.minibatch_size=256"])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_fuzzed_settings_are_accepted_or_refused_by_name(data: st.DataObject) -> None:
    """Whatever value a setting gets, the outcome is a valid experiment or a ConfigError that names the setting."""
    config = copy.deepcopy(small_cartpole())
    keys = [
        key for key in _leaves(config) if key.startswith(("task.env", "task.sim", "train.params", "num_envs", "seed"))
    ]
    key = data.draw(st.sampled_from(keys))
    value = data.draw(
        st.one_of(
            st.integers(-3, 3), st.floats(allow_nan=True), st.booleans(), st.text(max_size=5), st.none(), st.just([])
        )
    )
    OmegaConf.update(config, key, value)
    try:
        experiment = Experiment(config)
        experiment.make_task()
        experiment.make_policy()
        experiment.ppo.num_minibatches(experiment.num_envs)
    except ConfigError as error:
        assert key.rpartition(".")[2] in str(error)


def test_a_run_leaves_nothing_but_its_folder(run_script: Run, tmp_path: Path) -> None:
    arguments = (
        "task=Cartpole",
        "simulator/low=mujoco_reduced",
        "num_envs=32",
        "train.params.config.minibatch_size=256",
    )
    result = run_script("train.py", *arguments, "max_iterations=1")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("name", ["a=b", "lö ([a]=b) 'q' \"d\"", "run (2)", "[x", "it's", "a\\'"])
def test_what_hydra_cannot_read_is_said_with_what_it_can(name: str) -> None:
    parser = OverridesParser.create()
    with pytest.raises(OverrideParseException) as refused:
        parser.parse_overrides([f"experiment={name}"])
    message = describe(refused.value)
    (pasted,) = shlex.split(message.partition("a text is written ")[2])
    assert "\n" not in message and parser.parse_override(pasted).value() == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"3", "cfg/task/Mine.yaml: holds 3; a mapping of settings is expected"),
        (b"\xff", "cfg/task/Mine.yaml: a text in UTF-8 is expected"),
        (b"defaults: [Mine]", "settings are nested too deeply, or files include each other by their `defaults`"),
        (b"defaults: [absent]", "task/absent: no such file"),
        (b"env: &env {again: *env}", "cfg/task/Mine.yaml: nested too deeply"),
        (b"low: mujoco_reduced", "task.name: is required"),
        (b"defaults: [Cartpole]\nlow: ${absent}", "absent: is not set, but task.low takes its value"),
        (b"defaults: [Cartpole]\nlow: mujoco_reduced\nenv: 3", "task.env=3: a mapping is expected"),
        (b"defaults: [Cartpole]\nsimulators: {mujoko: {}}", "task.simulators.mujoko: no such engine; allowed are"),
        (b"defaults: [Cartpole]\nsimulators: {mujoco: 3}", "task.simulators.mujoco=3: a mapping is expected"),
    ],
)
def test_a_file_that_holds_no_settings_is_one_line(
    content: bytes, message: str, run_script: Run, tmp_path: Path
) -> None:
    (tmp_path / "cfg" / "task").mkdir(parents=True)
    (tmp_path / "cfg" / "task" / "Mine.yaml").write_bytes(content)
    result = run_script("check_task.py", "--config-dir=cfg", "task=Mine", "train=CartpolePPO")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ") and message in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: Mine", None),
        (b"# nothing", None),
        (b"\xff", "a text in UTF-8 is expected"),
        (b"defaults: 3", "defaults=3: a list is expected"),
        (b"name: !!int x", "invalid literal for int() with base 10: 'x'"),
        (b"null: 3", "Incompatible key type 'NoneType'"),
        (b"name: ${", "name: no viable alternative at input '${'"),
        (b"name: 2001-01-01", "name: Value 'date' is not a supported primitive type"),
        (b"env: " + b"[" * 2000 + b"]" * 2000, "nested too deeply"),
    ],
)
def test_which_file_is_at_fault(
    content: bytes, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "Mine.yaml").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["train.py", f"--config-dir={tmp_path}"])
    fault = faulty_file()
    if message is None:
        assert fault is None
    else:
        assert str(fault).startswith(f"{tmp_path}/task/Mine.yaml: {message}") and "\n" not in str(fault)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("~train", "train.params=None: a mapping is expected"),
        ("threads=1025", "threads=1025: must be a whole number from 0 to 1024"),
        ("task.env.episodeLength=99999999999999999999", "must be from -9223372036854775807 to 9223372036854775807"),
        ("num_envs=4611686018427387904", "there is not enough memory; use a smaller num_envs"),
        ("seed=" + "1" * 5000, "Exceeds the limit"),
        ("seed=" + "x" * 300, "error: seed=xxx"),  # longer than a file's name may be
        ("+x=" + "[" * 900 + "]" * 900, "settings are nested too deeply"),
    ],
)
def test_settings_without_bounds_are_one_line(argument: str, message: str, run_script: Run) -> None:
    result = run_script("train.py", "task=Cartpole", "simulator/low=mujoco_reduced", "max_iterations=1", argument)
    assert result.returncode == 2, result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ") and message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("option", [["--config-dir=cfg"], ["--config-dir", "cfg"], ["-cd", "cfg"]])
def test_hydras_options_may_stand_anywhere(option: list[str], run_script: Run, tmp_path: Path) -> None:
    (tmp_path / "cfg").mkdir()
    result = run_script("train.py", "task=Cartpole", *option, "num_envs=none", "seed=1")
    assert (result.returncode, result.stderr) == (2, "error: num_envs=none: must be a whole number of at least 1\n")


def test_an_option_without_its_value_is_refused(run_script: Run) -> None:
    result = run_script("train.py", "task=Cartpole", "--config-dir")
    assert (result.returncode, result.stderr) == (2, "error: --config-dir: a value is expected behind it\n")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--hepl", "--hepl: no such option; --help lists the settings, which are typed key=value"),
        ("Ant", "Ant: a setting is typed key=value, such as task=Ant"),
    ],
)
def test_what_is_no_setting_is_refused(run_script: Run, argument: str, expected: str) -> None:
    result = run_script("train.py", argument)
    assert result.returncode == 2 and result.stderr.splitlines()[-1] == f"error: {expected}"


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", ["task=null"], "task=null: the name of a file in cfg/task is expected"),
        ("train.py", ["task=[Cartpole]"], "task=[Cartpole]: one name is expected, without brackets"),
        ("train.py", ["task=Ant.yaml"], "task=Ant.yaml: write the name without .yaml: task=Ant"),
        ("train.py", ["allocation=3"], "allocation=3: the name of a file in cfg/allocation is expected"),
        ("train.py", ["simulator/high=null"], "simulator/high=null: the name of a file in cfg/simulator is expected"),
        ("train.py", ["simulator/high=[mujoco]"], "simulator/high=[mujoco]: one name is expected, without brackets"),
        ("train.py", ["resume=no"], "resume=no: True or False is expected"),
        ("train.py", ["test=[x]"], "test=['x']: True or False is expected"),
        ("train.py", ["experiment=[a]"], "experiment=['a']: a text is expected"),
        ("calibrate.py", ["search=no"], "search=no: True or False is expected"),
        ("play.py", ["follow=3"], "follow=3: True or False is expected"),
    ],
)
def test_what_is_no_name_and_no_switch_is_refused(
    script: str, arguments: list[str], message: str, run_script: Run
) -> None:
    """Hydra ends `task=null` with a traceback, and `resume=no` is a text, which counts as true."""
    result = run_script(script, *arguments)
    assert (result.returncode, result.stderr) == (2, f"error: {message}\n")
