"""Seconds to a return in one task: our default, rsl_rl's runner and Stable-Baselines3's PPO on the same machine.

    python benchmarks/others.py --seeds 1 2 3 --limit 900
    python benchmarks/others.py --task Ant --target 3000 --out others.json

All three train as many environments of full MuJoCo, our default also those of its E_low, with so many threads. The
others have our network and the settings that their own projects publish for the Ant (below). A run ends when the mean
return of its deterministic policy is at the target. It also ends when the limit is spent. The mean is over 32 whole
episodes of full MuJoCo. Evaluation does not count. What counts is CPU seconds of the run's processes, which other work
on the machine changes little. Wall seconds stand beside them. The seconds are interpolated between the last two
evaluations.

Needs `pip install rsl-rl-lib stable-baselines3 psutil -c constraints.txt`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dualfid_robot.adapters.make import make_vec
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.evaluate.agents import Agent, policy_agent
from dualfid_robot.evaluate.evaluation import evaluate
from dualfid_robot.studies.configuration import compose_run, hydra_initialized, settle
from dualfid_robot.train.trainer import Trainer

UNITS = [256, 128, 64]
RSL_RL: dict[str, Any] = {  # as Isaac Lab's AntPPORunnerCfg, but for the network
    "num_steps_per_env": 32,
    "save_interval": 1_000_000,
    "obs_groups": {"actor": ["policy"], "critic": ["critic"]},
    "actor": {
        "class_name": "MLPModel",
        "hidden_dims": UNITS,
        "activation": "elu",
        "obs_normalization": True,
        "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 1.0},
    },
    "critic": {"class_name": "MLPModel", "hidden_dims": UNITS, "activation": "elu", "obs_normalization": True},
    "algorithm": {
        "class_name": "PPO",
        "learning_rate": 5e-4,
        "schedule": "adaptive",
        "desired_kl": 0.01,
        "gamma": 0.99,
        "lam": 0.95,
        "num_learning_epochs": 5,
        "num_mini_batches": 4,
        "clip_param": 0.2,
        "value_loss_coef": 1.0,
        "use_clipped_value_loss": True,
        "entropy_coef": 0.0,
        "max_grad_norm": 1.0,
    },
}
SB3: dict[str, Any] = {  # its defaults, with a rollout and mini-batches for many environments; inputs are normalised
    "n_steps": 32,
    "n_epochs": 5,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "learning_rate": 3e-4,
    "ent_coef": 0.0,
    "max_grad_norm": 0.5,
}
MINIBATCHES = 4
EPISODES, JUDGE_SEED = 32, 10_000


class Contestant(NamedTuple):
    """A way of training.

    Attributes:
        iterate: trains for one iteration. Returns the environment steps so far.
        agent: the deterministic policy as it is now.
    """

    iterate: Callable[[], int]
    agent: Callable[[], Agent]


class Settings(NamedTuple):
    """What all contestants have in common."""

    task: str
    seed: int
    overrides: list[str]


def ours(settings: Settings) -> Contestant:
    """train.py with its defaults."""
    trainer = Trainer(Experiment(compose_run([*settings.overrides, f"seed={settings.seed}"])))

    def iterate() -> int:
        trainer.iterate()
        return trainer.samples

    return Contestant(iterate, lambda: policy_agent(trainer.policy, "adapted"))


def rsl_rl(settings: Settings) -> Contestant:
    """rsl_rl's OnPolicyRunner."""
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    from dualfid_robot.adapters.rsl_rl import RslRlVecEnv

    env = RslRlVecEnv(make_vec(settings.task, seed=settings.seed, overrides=settings.overrides[1:], tensors=True))
    with _silence():
        runner = OnPolicyRunner(env, RSL_RL)
    done = 0

    def iterate() -> int:
        nonlocal done
        with _silence():
            runner.learn(1, init_at_random_ep_len=not done)
        done += 1
        return done * RSL_RL["num_steps_per_env"] * env.num_envs

    def agent() -> Agent:
        policy = runner.get_inference_policy()

        @torch.no_grad()
        def act(observations: Tensor) -> Tensor:
            found: Tensor = policy(
                TensorDict({"policy": observations, "critic": observations}, batch_size=[len(observations)])
            )
            return found

        return act

    return Contestant(iterate, agent)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Throw away what is printed."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def stable_baselines3(settings: Settings) -> Contestant:
    """Stable-Baselines3's PPO, observations and rewards normalised by its VecNormalize."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    from dualfid_robot.adapters.stable_baselines3 import StableBaselinesVecEnv

    env = make_vec(settings.task, seed=settings.seed, overrides=settings.overrides[1:])
    normalised = VecNormalize(StableBaselinesVecEnv(env), gamma=SB3["gamma"])
    steps = SB3["n_steps"] * env.num_envs
    network = {"net_arch": UNITS, "activation_fn": torch.nn.ELU}
    model = PPO(
        "MlpPolicy",
        normalised,
        batch_size=steps // MINIBATCHES,
        policy_kwargs=network,
        seed=settings.seed,
        device="cpu",
        **SB3,
    )

    def iterate() -> int:
        model.learn(steps, reset_num_timesteps=False)
        return int(model.num_timesteps)

    def act(observations: Tensor) -> Tensor:
        actions, _ = model.predict(normalised.normalize_obs(observations.numpy()), deterministic=True)
        return torch.from_numpy(actions)

    return Contestant(iterate, lambda: act)


CONTESTANTS = {"ours": ours, "rsl_rl": rsl_rl, "stable_baselines3": stable_baselines3}


def cpu_seconds() -> float:
    """CPU time of this process and of its worker processes."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def points(contestant: Contestant, pool: EnvironmentPool, every: float, limit: float) -> Iterator[dict[str, float]]:
    """Train, and evaluate each time that so many CPU seconds have been spent, until the limit."""
    cpu = wall = 0.0
    samples = 0
    yield {"cpu_seconds": 0.0, "wall_seconds": 0.0, "samples": 0, "return": evaluate(contestant.agent(), pool).mean}
    due = every
    while cpu < limit:
        started = cpu_seconds(), time.perf_counter()
        samples = contestant.iterate()
        cpu, wall = cpu + cpu_seconds() - started[0], wall + time.perf_counter() - started[1]
        if cpu >= due or cpu >= limit:
            due = cpu + every
            value = evaluate(contestant.agent(), pool).mean
            yield {"cpu_seconds": cpu, "wall_seconds": wall, "samples": samples, "return": value}


def run(arguments: argparse.Namespace) -> None:
    """One run, in a process of its own; writes its curve."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seeds[0])
    with hydra_initialized():
        _, overrides = settle([f"task={arguments.task}"], arguments.threads)
        settings = Settings(arguments.task, arguments.seeds[0], overrides)
        judge = Experiment(compose_run(overrides))
        contestant = CONTESTANTS[arguments.contestants[0]](settings)
    pool = judge.make_pool(judge.high_engine, EPISODES, JUDGE_SEED)
    curve = []
    for point in points(contestant, pool, arguments.every, arguments.limit):
        curve.append(point)
        told = ", ".join(f"{name} {value:.4g}" for name, value in point.items())
        print(f"{arguments.contestants[0]}, seed {settings.seed}: {told}", flush=True)
        if point["return"] >= arguments.target:
            break
    arguments.out.write_text(json.dumps(curve))


def seconds_to(curve: list[dict[str, float]], target: float, key: str) -> float | None:
    """Seconds at which a curve first is at the target, linear between its points. It is None where it never is."""
    for before, after in itertools.pairwise(curve):
        if after["return"] >= target:
            share = (target - before["return"]) / (after["return"] - before["return"])
            return before[key] + max(share, 0.0) * (after[key] - before[key])
    return None


def table(curves: dict[str, dict[str, list[dict[str, float]]]], target: float) -> Table:
    """A row for each contestant: seconds per seed, and their median, with infinity for a run that never got there."""
    shown = Table(title=f"Seconds to a return of {target:g}", title_justify="left")
    for header in ("", "CPU s, per seed", "median", "wall s, per seed", "samples, M", "best return"):
        shown.add_column(header, overflow="fold")
    for name, seeds in curves.items():
        texts, medians = {}, {}
        for key in ("cpu_seconds", "wall_seconds"):
            found = [seconds_to(curve, target, key) for curve in seeds.values()]
            texts[key] = ", ".join(
                f"> {c[-1][key]:.0f}" if s is None else f"{s:.0f}" for s, c in zip(found, seeds.values(), strict=True)
            )
            medians[key] = statistics.median(float("inf") if s is None else s for s in found)
        samples = ", ".join(f"{curve[-1]['samples'] / 1e6:.2f}" for curve in seeds.values())
        best = ", ".join(f"{max(point['return'] for point in curve):.0f}" for curve in seeds.values())
        shown.add_row(name, texts["cpu_seconds"], f"{medians['cpu_seconds']:.0f}", texts["wall_seconds"], samples, best)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="Ant")
    parser.add_argument("--target", type=float, default=3000.0, help="return at which a run ends")
    parser.add_argument("--contestants", nargs="+", choices=sorted(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--limit", type=float, default=900.0, help="CPU seconds of a run")
    parser.add_argument("--every", type=float, default=20.0, help="CPU seconds between evaluations")
    parser.add_argument("--threads", type=int, default=1, help="of the learner and of each simulator")
    parser.add_argument("--out", type=Path, default=Path("others.json"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run(arguments)
        return
    curves: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in arguments.contestants}
    common = [f"--{key}={getattr(arguments, key)}" for key in ("task", "target", "limit", "every", "threads")]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    # Seed by seed, so that a machine that becomes slower meets all contestants alike.
    for seed in arguments.seeds:
        for name in arguments.contestants:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "curve.json"
                own = ["--child", f"--contestants={name}", f"--seeds={seed}", f"--out={out}"]
                subprocess.run([sys.executable, __file__, *common, *own], check=True, env=environment)
                curves[name][str(seed)] = json.loads(out.read_text())
            arguments.out.write_text(json.dumps({"target": arguments.target, "curves": curves}, indent=1) + "\n")
    Console(width=120).print(table(curves, arguments.target))


if __name__ == "__main__":
    main()
