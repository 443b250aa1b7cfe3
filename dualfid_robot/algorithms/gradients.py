"""The gradient of the PPO loss of a mini-batch with respect to θ and φ.

A mini-batch is cut into blocks of one fidelity's rows. A block goes forward through its policy's merged weights. Its
loss is differentiated by hand, and the gradient goes backward. Any free thread does it. Blocks' gradients are summed in
order, so that results do not depend on the threads. From the merged weights they go to θ and φ once:

    G_low, G_high = Σ_blocks ∂L/∂W, ∂L/∂W'        dW = G_low + G_high        dA, dB, dδb from G_high alone
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from dualfid_robot.algorithms.minibatches import Chunk
from dualfid_robot.algorithms.ppo_loss import LossCoefficients, MiniBatch, policy_loss_gradient, value_loss_gradient
from dualfid_robot.policies.actor_critic import DualActorCritic, of_policy
from dualfid_robot.policies.mlp import Affine, cut, share_out

SUMS = ("policy_loss", "approx_kl", "clip_fraction", "value_loss")
"""What is summed over samples for the log, in this order."""


class _Block(NamedTuple):
    """Samples of one fidelity, the weight of each, and where the gradient goes."""

    batch: MiniBatch
    high: bool
    weight: float
    place: _Place


class _Dense(NamedTuple):
    """A flat gradient at merged weights.

    Hidden layers' weights have it in the type of their products. All else has it in the parameters' type: output
    layers' weights, biases, log σ and ``SUMS``. As memory of several blocks, a row each.
    """

    hidden: Tensor
    exact: Tensor


class _Place(NamedTuple):
    """Views of a ``_Dense`` by what they are the gradients at."""

    networks: list[list[Affine]]
    log_std: Tensor
    policy_sums: Tensor
    value_sum: Tensor


class PolicyGradient:
    """Gradients of a policy's PPO loss, in memory that stays.

    Args:
        policy: both policies.
        coefficients: of the loss.
    """

    def __init__(self, policy: DualActorCritic, coefficients: LossCoefficients) -> None:
        self.policy, self.coefficients = policy, coefficients
        self._networks = [list(network.dual_layers()) for network in policy.dual_networks()]
        self._layers = list(chain(*self._networks))
        heads = [network[-1] for network in self._networks]
        exact = [*(layer.weight for layer in heads), *(layer.bias for layer in self._layers)]
        self._shapes = (
            [layer.weight.shape for network in self._networks for layer in network[:-1]],
            [*(p.shape for p in (*exact, policy.log_std)), torch.Size((3,)), torch.Size(())],
        )
        self._memory: _Dense | None = None
        self._places: list[_Place] = []

    @torch.no_grad()
    def accumulate(
        self, chunks: Sequence[Chunk], weights: tuple[float, float], sums: Tensor, base_from_high: bool = True
    ) -> None:
        """Give the parameters the gradient of w_low L_low + w_high L_high, each a mean over its samples.

        Parameters that the mini-batch's rows do not reach keep the gradient that they have.

        Args:
            chunks: the mini-batch.
            weights: of the two losses.
            sums: (2, 4), to which ``SUMS`` over the low and over the high samples are added.
            base_from_high: whether θ learns from the high rows.
        """
        blocks = self._blocks(chunks, weights)
        merged, passes = self.policy.merged(), self.policy.passes
        networks = [of_policy(merged, high) for high in (False, True)]
        last, num_actions = len(self._networks) - 1, self.policy.num_actions

        # each network's pass over each block: forward, loss, backward
        def run(worker: int, task: tuple[_Block, int]) -> None:
            block, index = task
            batch, place = block.batch, block.place
            surrogate_only = batch.policy_weights is not None and not block.high
            with torch.no_grad():
                network, layers = passes[worker][index], networks[block.high][index]
                result = network.forward(self.policy.inputs(batch.obs, index), layers)
                gradients = []
                # the first network gives the means, the last one gives the value
                if index == 0:
                    of_means = policy_loss_gradient(
                        result[:, :num_actions],
                        self.policy.log_std,
                        batch,
                        block.weight,
                        self.coefficients,
                        surrogate_only,
                    )
                    gradients.append(of_means.mean)
                    place.log_std.copy_(of_means.log_std)
                    place.policy_sums.copy_(of_means.sums)
                if index == last:
                    weight = 0.0 if surrogate_only else block.weight
                    of_value = value_loss_gradient(result[:, -1], batch, weight, self.coefficients)
                    gradients.append(of_value.value.unsqueeze(-1))
                    place.value_sum.copy_(of_value.sum)
                gradient = gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)
                network.backward(gradient, layers, place.networks[index])

        share_out(run, [(block, index) for block in blocks for index in range(last + 1)], sums.device)

        # sums over each fidelity's blocks, which are neighbours
        n_low = sum(not block.high for block in blocks)
        low, high = self._sum(slice(0, n_low)), self._sum(slice(n_low, len(blocks)))
        for side, dense in enumerate((low, high)):
            if dense is not None:
                sums[side] += dense.exact[-len(SUMS) :]

        # from merged weights to θ and φ
        of_base = [dense for dense in ((low, high) if base_from_high else (low,)) if dense is not None]
        if of_base:
            total = _Dense(*(sum(parts[1:], parts[0]) for parts in zip(*of_base, strict=True)))
            self._set_base_gradient(self._views(total))
        if high is not None:
            self._set_adapter_gradient(self._views(high))

    def _blocks(self, chunks: Sequence[Chunk], weights: tuple[float, float]) -> list[_Block]:
        """The mini-batch in blocks, low ones first."""
        samples = (sum(chunk.n_low for chunk in chunks), sum(chunk.n_high for chunk in chunks))
        found = [
            (chunk.batch.rows(block.rows.start, block.rows.stop), block.high)
            for chunk in chunks
            for block in cut((chunk.n_low, chunk.n_high), self.policy.log_std.device)
        ]
        found.sort(key=lambda part: part[1])
        self._reserve(len(found))
        return [
            _Block(batch, high, weights[high] / samples[high], place)
            for (batch, high), place in zip(found, self._places, strict=False)
        ]

    def _reserve(self, blocks: int) -> None:
        """Have places for so many blocks, in the present type of hidden layers."""
        dtypes, device = (self.policy.hidden_dtype, self.policy.log_std.dtype), self.policy.log_std.device
        if self._memory is not None and len(self._places) >= blocks and self._memory.hidden.dtype == dtypes[0]:
            return
        sizes = [sum(shape.numel() for shape in shapes) for shapes in self._shapes]
        self._memory = _Dense(
            *(torch.empty(blocks, n, dtype=t, device=device) for n, t in zip(sizes, dtypes, strict=True))
        )
        self._places = [self._views(_Dense(*rows)) for rows in zip(*self._memory, strict=True)]

    def _views(self, dense: _Dense) -> _Place:
        """A gradient's parts by what they are the gradients at."""
        weights, exact = (
            [part.view(shape) for part, shape in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)]
            for flat, shapes in zip(dense, self._shapes, strict=True)
        )
        hidden, parameters, (log_std, policy_sums, value_sum) = iter(weights), iter(exact[:-3]), exact[-3:]
        heads = [next(parameters) for _ in self._networks]
        networks = [
            [Affine(head if layer is network[-1] else next(hidden), next(parameters)) for layer in network]
            for network, head in zip(self._networks, heads, strict=True)
        ]
        return _Place(networks, log_std, policy_sums, value_sum)

    def _sum(self, blocks: slice) -> _Dense | None:
        """The gradient of these blocks together, in the parameters' type; None of none."""
        if blocks.start == blocks.stop:
            return None
        assert self._memory is not None
        first, *others = range(blocks.start, blocks.stop)
        hidden, exact = self._memory.hidden[first].to(self._memory.exact.dtype), self._memory.exact[first].clone()
        for index in others:
            hidden += self._memory.hidden[index]
            exact += self._memory.exact[index]
        return _Dense(hidden, exact)

    def _set_base_gradient(self, total: _Place) -> None:
        self.policy.log_std.grad = total.log_std
        for layer, gradient in zip(self._layers, chain(*total.networks), strict=True):
            layer.weight.grad, layer.bias.grad = gradient

    def _set_adapter_gradient(self, high: _Place) -> None:
        for layer, gradient in zip(self._layers, chain(*high.networks), strict=True):
            layer.set_adapter_gradient(*gradient)
