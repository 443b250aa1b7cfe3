"""Training by several processes, one per GPU, that torchrun started (docs/distributed.md)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from dualfid_robot.algorithms.communicator import ALONE, Communicator, ProcessGroup
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others: longer than the slowest builds its simulators, kernels included."""


def prepare(cfg: DictConfig) -> None:
    """Check how this process was started against `multi_gpu`, and give it its share of the CPUs.

    Raises:
        ConfigError: torchrun without multi_gpu=True, or the reverse.
    """
    launched = "LOCAL_RANK" in os.environ
    if cfg.multi_gpu and not launched:
        raise ConfigError(
            "multi_gpu=True: start one process per GPU with "
            f"torchrun --standalone --nproc_per_node=<GPUs> -m dualfid_robot train task={cfg.task.name} multi_gpu=True"
        )
    if launched and not cfg.multi_gpu:
        raise ConfigError(
            "multi_gpu=False: torchrun started several processes, which would be as many separate runs; "
            "add multi_gpu=True"
        )
    if launched:
        _take_cpus(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
        if int(os.environ["RANK"]) > 0:
            logging.disable(logging.WARNING)  # rank 0 says it for all


def use_own_gpu(experiment: Experiment) -> None:
    """Put what the experiment has on a GPU on that of this process, cuda:LOCAL_RANK.

    Raises:
        ConfigError: the machine has fewer GPUs than processes.
    """
    local_rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    for key in ("sim_device", "rl_device"):
        if getattr(experiment, key).type == "cuda":
            if local_rank >= gpus:
                raise ConfigError(f"nproc_per_node={os.environ['LOCAL_WORLD_SIZE']}: this machine has {gpus} GPU(s)")
            setattr(experiment, key, torch.device("cuda", local_rank))
            experiment.settings[key] = f"cuda:{local_rank}"


@contextmanager
def communicator(multi_gpu: bool, device: torch.device) -> Iterator[Communicator]:
    """The processes of this run: NCCL between GPUs, Gloo between CPUs and for the host's own objects.

    Args:
        device: the learner's.
    """
    if not multi_gpu:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    yield ProcessGroup()
    # Not after an error: the others may be inside a collective that this process will never enter. It ends instead,
    # and torchrun ends them.
    dist.destroy_process_group()


def _take_cpus(local_rank: int, local_size: int) -> None:
    """Keep this process to its part of the machine's CPUs. Simulators size their threads and workers by it."""
    if sys.platform == "linux":
        cpus = sorted(os.sched_getaffinity(0))
        own = cpus[len(cpus) * local_rank // local_size : len(cpus) * (local_rank + 1) // local_size]
        os.sched_setaffinity(0, own or cpus)
