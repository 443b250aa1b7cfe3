"""The contract of a task, as a pool keeps it: histories, memory, curricula, commands, cumulative actions, measures."""

from __future__ import annotations

import copy
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import COMMAND_STEPS, EPISODE, START_CONTROL, Chase, MaskingRecorder, Recorder, make_pool

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.task import ActionMapping, TaskConfig, Term
from dualfid_robot.robots.model import RobotModel

JOINTS, COMMAND, CONTROL, ACTION = slice(0, 6), slice(6, 8), slice(8, 10), slice(10, 11)
SPEEDS, LEVEL = slice(11, 15), slice(15, 16)
WORLDS = 8


def toy(robot: RobotModel, terms: tuple[Term, ...], clip: float = 5.0, privileged: tuple[Term, ...] = ()) -> Chase:
    task = Chase(TaskConfig(1, 1, clipObservations=clip), robot, 1 / 60, "cpu")
    task.terms, task.privileged_terms = terms, privileged
    return task


def random_actions(step: int, generator: torch.Generator) -> Tensor:
    """Of all worlds, or of fewer in every third step."""
    return 2.0 * torch.randn(WORLDS if step % 3 else WORLDS - 3, 1, generator=generator)


def test_a_history_followed_by_hand(cartpole: RobotModel) -> None:
    task = toy(cartpole, (Term("x", 2, scale=0.5, history=3), Term("y", 1)))
    out = torch.full((1, 7), torch.nan)
    task.write_observation({"x": torch.tensor([[1.0, 2.0]]), "y": torch.tensor([7.0])}, out, first=True)
    assert out.tolist() == [[0.5, 1.0, 0.5, 1.0, 0.5, 1.0, 5.0]]  # 7 is clipped
    task.write_observation({"x": torch.tensor([[3.0, -20.0]]), "y": torch.tensor([1.0])}, out, first=False)
    assert out.tolist() == [[0.5, 1.0, 0.5, 1.0, 1.5, -5.0, 1.0]]
    task.write_observation({"x": torch.tensor([[4.0, 0.0]]), "y": torch.tensor([2.0])}, out, first=False)
    assert out.tolist() == [[0.5, 1.0, 1.5, -5.0, 2.0, 0.0, 2.0]]
    task.write_observation({"x": torch.tensor([[6.0, 8.0]]), "y": torch.tensor([0.0])}, out, first=True)
    assert out.tolist() == [[3.0, 4.0, 3.0, 4.0, 3.0, 4.0, 0.0]]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=4),
    starts=st.lists(st.booleans(), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
def test_any_histories_are_those_of_a_queue(
    cartpole: RobotModel, sizes: list[tuple[int, int]], starts: list[bool], seed: int
) -> None:
    terms = tuple(Term(str(i), size, scale=1.0 + i, history=history) for i, (size, history) in enumerate(sizes))
    task = toy(cartpole, terms[:1], clip=1e9, privileged=terms[1:])
    out = torch.zeros(2, task.num_observations)
    queues = [deque[Tensor](maxlen=history) for _, history in sizes]
    generator = torch.Generator().manual_seed(seed)
    for first in [True, *starts]:
        observed = {term.name: torch.randn(2, term.size, generator=generator) for term in terms}
        for term, queue in zip(terms, queues, strict=True):
            queue.extend([observed[term.name] * term.scale] * (term.history if first else 1))
        task.write_observation(observed, out, first)
        assert torch.equal(out, torch.cat([value for queue in queues for value in queue], 1))


@pytest.mark.parametrize("engine", [Recorder, MaskingRecorder])
def test_a_pools_histories_go_on_in_each_world_by_itself(cartpole: RobotModel, engine: type[Recorder]) -> None:
    """Every world's histories, against lists that each begin with its episode and stand still while it is frozen."""
    pool = make_pool(cartpole, WORLDS, engine)
    blocks = [(JOINTS, 2), (CONTROL, 1), (SPEEDS, 2)]
    seen = [[[row.clone()] for row in pool.observations[:, block][:, -size:]] for block, size in blocks]
    generator, ends = torch.Generator().manual_seed(0), 0
    for step in range(60):
        before = pool.observations.clone()
        actions = random_actions(step, generator)
        pool.step(actions)
        n = len(actions)
        assert torch.equal(pool.observations[n:], before[n:])
        ended = pool.terminated[:n] | pool.truncated[:n]
        ends += int(ended.sum())
        last = torch.where(ended[:, None], pool.final_observations[:n], pool.observations[:n])
        for (block, size), histories in zip(blocks, seen, strict=True):
            length = (block.stop - block.start) // size
            for world, history in enumerate(histories[:n]):
                history.append(last[world, block][-size:].clone())
                padded = [history[0]] * length + history
                assert torch.equal(last[world, block], torch.cat(padded[-length:]))
                if ended[world]:
                    newest = pool.observations[world, block][-size:].clone()
                    assert torch.equal(pool.observations[world, block], newest.repeat(length))
                    histories[world] = [newest]
        assert torch.equal(pool.observations[:, JOINTS][:, -2:], 2.0 * pool.simulator.qpos)
        assert torch.equal(pool.observations[:, SPEEDS][:, -2:], (0.5 * pool.simulator.qvel).clamp(-5, 5))
    assert ends > 20


def test_resets_by_mask_and_by_number_agree_in_everything(cartpole: RobotModel) -> None:
    pools = [make_pool(cartpole, WORLDS, engine) for engine in (Recorder, MaskingRecorder)]
    generator = torch.Generator().manual_seed(1)
    ends = 0
    for step in range(60):
        actions = random_actions(step, generator)
        for pool in pools:
            pool.step(actions)
        first, second = (pool.state_dict() for pool in pools)
        for name in ("observations", "actions", "controls", "episode_step", "episode_return", "generator"):
            assert torch.equal(first[name], second[name]), name
        for name in Chase.memory:
            assert torch.equal(first["memory"][name], second["memory"][name]), name
        assert torch.equal(pools[0].measured["error"], pools[1].measured["error"])
        ends += int((pools[0].terminated | pools[0].truncated)[: len(actions)].sum())
    assert ends > 20


@pytest.mark.parametrize("engine", [Recorder, MaskingRecorder])
def test_a_curriculum_sees_how_the_last_episode_ended(cartpole: RobotModel, engine: type[Recorder]) -> None:
    """Worlds 0 and 1 stand still and rise a level with every full episode; 2 is driven out and stays; 3 is frozen."""
    pool = make_pool(cartpole, 4, engine)
    assert not pool.observations[:, LEVEL].any()
    push = torch.tensor([[0.0], [0.0], [1.0]])
    for _ in range(2 * EPISODE):
        # the first control is START_CONTROL: the first action takes it back
        first = (pool.episode_step[:2] == 0)[:, None]
        pool.step(torch.cat((torch.where(first, -START_CONTROL / 0.3, 0.0), push[2:])))
        assert not pool.terminated[:2].any()
    assert pool.observations[:, LEVEL].squeeze(1).tolist() == [2.0, 2.0, 0.0, 0.0]
    assert pool.observations[:2, COMMAND].tolist() == [[2.0, -2.0]] * 2  # what begin_episode made of it
    torch.testing.assert_close(pool.simulator.qpos[:2, 0], torch.tensor([0.2, 0.2]))
    lengths = pool.take_statistics().lengths
    assert (lengths == EPISODE).sum() == 4 and (lengths < EPISODE).sum() >= 2


def test_the_reward_sees_the_old_command_and_the_observation_the_new(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, 4)
    changes = 0
    for step in range(1, EPISODE):
        shown = pool.observations[:, COMMAND].clone()
        pool.step(torch.full((3, 1), -START_CONTROL / 0.3 if step == 1 else 0.0))
        assert torch.equal(pool.reward[:3], shown[:3, 0])
        assert torch.equal(pool.measured["error"], (pool.simulator.qpos[:3, 0] - shown[:3, 0]).abs())
        changed = (pool.observations[:, COMMAND] != shown).any(1)
        assert changed.tolist() == [step % COMMAND_STEPS == 0] * 3 + [False]
        assert torch.equal(pool.state_dict()["memory"]["command"], pool.observations[:, COMMAND])
        changes += int(changed.sum())
    assert changes == 2 * 3


def test_measures_are_means_over_all_steps(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, WORLDS)
    generator = torch.Generator().manual_seed(2)
    errors: list[Tensor] = []
    for _ in range(2):
        errors.clear()
        for step in range(20):
            pool.step(random_actions(step, generator))
            errors.append(pool.measured["error"].double())
        statistics = pool.take_statistics()
        assert statistics.env_steps == sum(map(len, errors))
        assert statistics.measures == {"error": pytest.approx(float(torch.cat(errors).mean()), rel=1e-12)}


def test_cumulative_actions_add_up_and_stop_at_the_limits(cartpole: RobotModel) -> None:
    """Against a plain loop: control = limit(control + 0.3 clip(action)), from the initial control on."""
    pool = make_pool(cartpole, WORLDS, Recorder)
    assert isinstance(pool.simulator, Recorder)
    controls = np.full((WORLDS, 1), START_CONTROL, np.float32)
    generator = torch.Generator().manual_seed(3)
    reached = set()
    for step in range(40):
        actions = random_actions(step, generator)
        n = len(actions)
        pool.step(actions)
        controls[:n] = np.clip(controls[:n] + np.float32(0.3) * actions.numpy().clip(-1.0, 1.0), -1.0, 1.0)
        np.testing.assert_allclose(pool.simulator.controls[-1], controls[:n], rtol=0, atol=1e-6)
        reached |= set(controls[:n].ravel().tolist()) & {-1.0, 1.0}
        ended = (pool.terminated | pool.truncated).numpy()[:n]
        controls[:n][ended] = START_CONTROL
        np.testing.assert_allclose(pool.observations[:, CONTROL][:, -1:], controls, rtol=0, atol=1e-6)
    assert reached == {-1.0, 1.0}


def test_scale_and_offset_hold_per_actuator(ant: RobotModel) -> None:
    task = Chase(TaskConfig(1, 1), ant, 1 / 60, "cpu")
    scale, offset = tuple(0.1 * (i + 1) for i in range(8)), tuple(float(-i) for i in range(8))
    task.action_mapping = ActionMapping("joint position", scale=scale, offset=offset, clip=2.0)
    actions = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) * 2
    expected = actions.numpy().clip(-2, 2) * np.array(scale, np.float32) + np.array(offset, np.float32)
    clipped = task.clip_action(actions)
    np.testing.assert_allclose(task.control(clipped, torch.full((5, 8), torch.nan)), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        super(Chase, task).initial_control(torch.zeros(5, 15)), np.tile(np.array(offset, np.float32), (5, 1))
    )


def test_privileged_terms_stand_behind_the_others(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, 2)
    assert pool.task.num_observations == 17 and pool.task.num_privileged == 6
    pool.step(torch.ones(2, 1))
    assert torch.equal(pool.observations[:, SPEEDS][:, -2:], 0.5 * pool.simulator.qvel)
    assert pool.observations[:, ACTION].tolist() == [[1.0], [1.0]]


def continued(pool: EnvironmentPool, steps: int, seed: int) -> list[Tensor]:
    """Everything that so many steps show."""
    generator = torch.Generator().manual_seed(seed)
    shown = []
    for step in range(steps):
        actions = random_actions(step, generator)
        n = len(actions)
        pool.step(actions)
        shown += [pool.observations.clone(), pool.measured["error"]]
        shown += [values[:n].clone() for values in (pool.reward, pool.terminated, pool.truncated)]
    return shown


def test_a_pool_goes_on_exactly(cartpole: RobotModel) -> None:
    pool, other = make_pool(cartpole, WORLDS), make_pool(cartpole, WORLDS, seed=9)
    continued(pool, 17, seed=0)
    continued(other, 3, seed=5)
    saved = copy.deepcopy(pool.state_dict())
    expected = continued(pool, 20, seed=1)
    other.load_state_dict(saved)
    for ours, theirs in zip(continued(other, 20, seed=1), expected, strict=True):
        assert torch.equal(ours, theirs)
