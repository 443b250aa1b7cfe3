"""Actor and critic of both policies: the base policy π_θ for low rows, the adapted policy π_{θ,φ} for high rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dualfid_robot.policies.dual_linear import DualLinear, DualWeights, LayerAdapter
from dualfid_robot.policies.mlp import Affine, Block, MLPPass, cut, share_out
from dualfid_robot.policies.normalizer import Gather, ObservationNormalizer, ReturnNormalizer, alone
from dualfid_robot.settings import require
from dualfid_robot.threads import threads

PolicyName = Literal["base", "adapted"]
AdapterKind = Literal["lora", "bit", "none"]
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class DualMLP(nn.Module):
    """A stack of ``DualLinear`` layers. Hidden layers may run in a narrow type. The output layer always runs in
    float32, so that means and values are not rounded to that type. Its adapter always has full rank."""

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        rank: int,
        alpha: float,
        output_gain: float,
        generator: torch.Generator | None,
        adapter: AdapterKind,
    ) -> None:
        super().__init__()
        last = len(sizes) - 2
        others: LayerAdapter = "lora" if adapter == "lora" else "none"
        first: LayerAdapter = "bias" if adapter == "bit" else others
        self.layers = nn.ModuleList(
            DualLinear(
                sizes[i],
                sizes[i + 1],
                sizes[i + 1] if i == last else rank,
                alpha,
                "identity" if i == last else activation,
                generator,
                first if i == 0 else others,
            )
            for i in range(last + 1)
        )
        with torch.no_grad():
            for i, layer in enumerate(self.dual_layers()):
                layer.weight.mul_(output_gain if i == last else math.sqrt(2.0))

    def dual_layers(self) -> Iterator[DualLinear]:
        for layer in self.layers:
            assert isinstance(layer, DualLinear)
            yield layer

    @property
    def activation(self) -> str:
        """Activation of the hidden layers."""
        return next(self.dual_layers()).activation

    @property
    def output_layer(self) -> DualLinear:
        layer = self.layers[-1]
        assert isinstance(layer, DualLinear)
        return layer

    def forward(self, x: Tensor, n_low: int, hidden_dtype: torch.dtype) -> Tensor:
        for layer in self.dual_layers():
            x = layer(x, n_low, layer.weight.dtype if layer is self.output_layer else hidden_dtype)
        return x

    def merged(self, hidden_dtype: torch.dtype, dial: float = 1.0) -> list[DualWeights]:
        return [
            layer.merged(layer.weight.dtype if layer is self.output_layer else hidden_dtype, dial)
            for layer in self.dual_layers()
        ]


Merged = list[list[DualWeights]]
"""Both policies' weights of each network's layers, as they are now."""


def of_policy(merged: Merged, high: bool) -> list[list[Affine]]:
    """The base policy's weights of each network's layers, or those of the adapted one."""
    return [[Affine(*layer[2:] if high else layer[:2]) for layer in network] for network in merged]


class Drawn(NamedTuple):
    """Actions that were sampled for N observations."""

    actions: Tensor
    """(N, num_actions)."""
    noise: Tensor
    """(N, num_actions), what they differ by from their means, in units of σ."""
    log_probs: Tensor
    """(N,)."""
    values: Tensor
    """(N,) of the observations."""


class DualActorCritic(nn.Module):
    """Gaussian actor and critic, with a base and an adapted version of every layer.

    Actor and critic are two networks, or one whose last layer gives the means and the value. So the means are the first
    columns that the first network gives, and the value is the last column that the last network gives.

    Rows [0, n_low) of any batch belong to the low fidelity and use θ. The others use θ and the adapter φ. Observations
    pass through one shared normaliser. The critic predicts returns in units of their own fidelity's mean and deviation.

    Both policies share log σ, one parameter that no state changes. The simulators do not disagree about exploration
    noise. KL(π_θ ‖ π_{θ,φ}) is then ½ Σ ((μ_θ − μ_{θ,φ}) / σ)², a distance between actions.

    Hidden layers are orthogonal with gain √2, biases zero. The action head has gain 0.01, so that the first actions are
    pure exploration noise around 0 in every state. Of all choices for the initial weights, Andrychowicz et al. found
    only this one to matter (arXiv 2006.05990, §3.2). The value head has the same gain, so it first predicts the mean
    return.

    Args:
        num_obs, num_actions: sizes of the observation and the action.
        num_privileged: number of last columns of an observation that only the critic sees.
        actor_hidden: widths of the actor's hidden layers.
        critic_hidden: widths of the critic's hidden layers. With None it has none: the value is one more output of the
            actor's network.
        activation: "elu", "tanh" or "relu".
        rank, alpha: of the adapters, see ``DualLinear``.
        adapter: what high rows have besides θ. "lora" is the low-rank adapter. "bit" has only the first layers' δb,
            zero at first. They are the weights of one more input, 1 in high rows and 0 in low ones. "none" is one
            policy for both. With "bit" and "none" both fidelities share the value head and the statistics of returns.
        init_log_std: initial log σ of every action.
        obs_clip: bound of the normalised observations.
        generator: source of the initial weights.

    Raises:
        ConfigError: privileged columns and one network, whose actor would see them.
    """

    def __init__(
        self,
        num_obs: int,
        num_actions: int,
        *,
        num_privileged: int = 0,
        actor_hidden: Sequence[int] = (256, 128, 64),
        critic_hidden: Sequence[int] | None = (256, 128, 64),
        activation: str = "elu",
        rank: int = 8,
        alpha: float = 8.0,
        init_log_std: float = 0.0,
        obs_clip: float = 5.0,
        adapter: AdapterKind = "lora",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.num_obs, self.num_actions = num_obs, num_actions
        self.num_actor_obs = num_obs - num_privileged
        self.normalizer = ObservationNormalizer(num_obs, obs_clip)
        self.return_normalizer = ReturnNormalizer(shared=adapter != "lora")
        of_both = (activation, rank, alpha, 0.01, generator, adapter)
        separate = critic_hidden is not None
        allowed = "true where a task has privileged observations, which the actor may not see"
        require(separate or num_privileged == 0, "train.params.network.separate", separate, allowed)
        sizes = [[self.num_actor_obs, *actor_hidden, num_actions + (not separate)]]
        if critic_hidden is not None:
            sizes.append([num_obs, *critic_hidden, 1])
        self.networks = nn.ModuleList(DualMLP(network, *of_both) for network in sizes)
        self.log_std = nn.Parameter(torch.full((num_actions,), float(init_log_std)))
        self.hidden_dtype = torch.float32
        """Type of the hidden layers' matrix products; the algorithm sets bfloat16 where that is fast."""
        self._frozen: Merged | None = None
        self._passes: list[list[MLPPass]] = []

    # --- acting: no gradients ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, obs: Tensor, n_low: int, generator: torch.Generator | None = None, paired: int = 0) -> Drawn:
        """Sample actions for obs (N, num_obs).

        Values are in units of the (scaled) reward's return. The first `paired` low rows have the noise of the first
        high rows.
        """
        mean, values = self.outputs(obs, n_low)
        noise = torch.randn(mean.shape, device=mean.device, generator=generator)
        if paired:
            noise[:paired] = noise[n_low : n_low + paired]
        actions = torch.addcmul(mean, noise, self.log_std.exp())
        log_probs = noise.square().sum(-1).mul_(-0.5).sub_(self.log_std.sum() + self.num_actions * HALF_LOG_2PI)
        return Drawn(actions, noise, log_probs, self.return_normalizer.denormalize(values, n_low))

    @torch.no_grad()
    def values(self, obs: Tensor, n_low: int) -> Tensor:
        """Values (N,) of obs (N, num_obs), in units of the (scaled) reward's return."""
        last = len(self.networks) - 1
        values = self._forward(self.normalizer(obs), n_low, self._merged(), (last,))[-1][:, -1]
        return self.return_normalizer.denormalize(values, n_low)

    @torch.no_grad()
    def action_mean(self, obs: Tensor, policy: PolicyName | float) -> Tensor:
        """The deterministic action (N, num_actions) of one policy on all rows.

        Args:
            obs: (N, num_obs).
            policy: the base policy, the adapted one, or a number λ. A number gives the weights W + λ·s·B·A and b +
                λ·δb: the base policy at 0, the adapted one at 1.
        """
        n_low = obs.shape[0] if policy == "base" else 0
        weights = self._merged() if isinstance(policy, str) else self.merged(policy)
        return self._forward(self.normalizer(obs), n_low, weights, (0,))[0][:, : self.num_actions]

    @torch.no_grad()
    def both_means(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean actions of the base and of the adapted policy on the same obs (M, num_obs), in one batched pass."""
        x = self.normalizer(obs)
        (results,) = self._forward(torch.cat((x, x)), x.shape[0], self._merged(), (0,))
        means = results[:, : self.num_actions]
        return means[: x.shape[0]], means[x.shape[0] :]

    def outputs(self, obs: Tensor, n_low: int) -> tuple[Tensor, Tensor]:
        """Action means (N, num_actions) and values (N,) in the critic's units, of obs (N, num_obs); no gradients."""
        results = self._forward(self.normalizer(obs), n_low, self._merged(), range(len(self.networks)))
        return results[0][:, : self.num_actions], results[-1][:, -1]

    @torch.no_grad()
    def _forward(self, x: Tensor, n_low: int, weights: Merged, indices: Sequence[int]) -> list[Tensor]:
        """What these networks give for normalised observations x (N, num_obs), rows [0, n_low) low."""
        networks, passes = [of_policy(weights, high) for high in (False, True)], self.passes
        results = [x.new_empty(x.shape[0], weights[index][-1].bias_low.shape[0]) for index in indices]
        x = x.to(self.hidden_dtype)

        def run(worker: int, block: Block) -> None:
            with torch.no_grad():  # which a thread does not inherit
                for index, result in zip(indices, results, strict=True):
                    inputs = self.inputs(x[block.rows], index)
                    result[block.rows] = passes[worker][index].forward(inputs, networks[block.high][index])

        share_out(run, cut((n_low, x.shape[0] - n_low), x.device), x.device)
        return results

    @property
    def passes(self) -> list[list[MLPPass]]:
        """Each network's passes, for each thread."""
        while len(self._passes) < threads().count:
            self._passes.append([MLPPass(network.activation) for network in self.dual_networks()])
        return self._passes

    def dual_networks(self) -> Iterator[DualMLP]:
        for network in self.networks:
            assert isinstance(network, DualMLP)
            yield network

    @property
    def actor(self) -> DualMLP:
        """The network whose first columns are the means."""
        return next(self.dual_networks())

    @property
    def critic(self) -> DualMLP:
        """The network whose last column is the value."""
        return list(self.dual_networks())[-1]

    def inputs(self, x: Tensor, index: int) -> Tensor:
        """The columns of (normalised) observations that a network sees: the first one those of the actor."""
        return x[:, : self.num_actor_obs] if index == 0 else x

    @contextmanager
    def frozen_weights(self) -> Iterator[None]:
        """Merge the adapters once for all acting inside the block, such as a rollout. Outside it, every call merges
        them.

        Raises:
            RuntimeError: at the block's end, if a weight has changed within it. On a GPU the device reports it later as
                a failed assertion, because the host does not wait for it. Weights without an adapter are not copied, so
                they cannot be stale and are not compared.
        """
        weights = self._merged()
        self._frozen = weights
        try:
            yield
        finally:
            self._frozen = None
        then_now = (chain.from_iterable(chain(*merged)) for merged in (weights, self._merged()))
        pairs = zip(*then_now, strict=True)
        unchanged = torch.stack([(then == now).all() for then, now in pairs]).all()
        torch._assert_async(unchanged, "the policy's weights changed inside frozen_weights(): it acted with stale ones")

    def _merged(self) -> Merged:
        return self.merged() if self._frozen is None else self._frozen

    def merged(self, dial: float = 1.0) -> Merged:
        """Both policies' weights as they are now, with λ = `dial` of the adapter in the adapted one."""
        return [network.merged(self.hidden_dtype, dial) for network in self.dual_networks()]

    # --- training ----------------------------------------------------------------------------------------------------

    def evaluate(self, x: Tensor, n_low: int) -> tuple[Tensor, Tensor]:
        """For autograd: normalised obs x (M, num_obs) -> mean (M, num_actions), value (M,) in the critic's units.

        Updates do not use it (``algorithms/gradients.py``): it is what they are compared with.
        """
        results = [network(self.inputs(x, i), n_low, self.hidden_dtype) for i, network in enumerate(self.networks)]
        return results[0][:, : self.num_actions], results[-1][:, -1]

    @torch.no_grad()
    def update_return_statistics(self, low_returns: Tensor, high_returns: Tensor, gather: Gather = alone) -> Tensor:
        """Update the return normaliser and rescale the value's row of weights so that no prediction changes.

        Pop-Art (van Hasselt et al., arXiv 1602.07714) per fidelity: w ← w σ / σ_new, b ← (b σ + μ − μ_new) / σ_new.
        An output layer's adapter is full-rank, so both policies can be rescaled exactly. Without an adapter both have
        the same statistics.

        Returns:
            σ / σ_new (2,) of low and high.
        """
        normalizer, head = self.return_normalizer, self.critic.output_layer
        old_mean, old_std = normalizer.mean.clone(), normalizer.std
        normalizer.update(low_returns, high_returns, gather)
        ratio = (old_std / normalizer.std).to(head.weight.dtype)
        shift = ((old_mean - normalizer.mean) / normalizer.std).to(head.weight.dtype)
        high = head.merged()
        weight_high, bias_high = high.weight_high[-1] * ratio[1], high.bias_high[-1] * ratio[1] + shift[1]
        head.weight[-1].mul_(ratio[0])
        head.bias[-1].mul_(ratio[0]).add_(shift[0])
        if head.lora_b is not None:
            assert head.bias_delta is not None
            head.lora_b[-1].copy_(weight_high - head.weight[-1])
            head.bias_delta[-1].copy_(bias_high - head.bias[-1])
        return ratio

    def adapter_parameters(self) -> list[nn.Parameter]:
        """φ: the low-rank factors and bias differences of every layer that has them."""
        layers = [layer for network in self.dual_networks() for layer in network.dual_layers()]
        return [p for layer in layers for p in (layer.lora_a, layer.lora_b, layer.bias_delta) if p is not None]

    def base_parameters(self) -> list[nn.Parameter]:
        """θ: every parameter that is not part of an adapter."""
        adapter = {id(p) for p in self.adapter_parameters()}
        return [p for p in self.parameters() if id(p) not in adapter]

    @torch.no_grad()
    def adapter_ratio(self) -> Tensor:
        """The size of the adapter: ‖W' − W‖ / ‖W‖ over all layers, in Frobenius norms."""
        layers = [layer for network in self.dual_networks() for layer in network.merged(torch.float32)]
        difference = torch.stack([(layer.weight_high - layer.weight_low).square().sum() for layer in layers]).sum()
        return torch.sqrt(difference / torch.stack([layer.weight_low.square().sum() for layer in layers]).sum())

    @torch.no_grad()
    def merged_actor(self, policy: PolicyName) -> nn.Sequential:
        """A copy of one policy as plain layers, normaliser included: (N, num_actor_obs) -> action mean. For export."""
        activations = {"elu": nn.ELU, "tanh": nn.Tanh, "relu": nn.ReLU, "identity": nn.Identity}
        normalizer = ObservationNormalizer(self.num_actor_obs, self.normalizer.clip).to(self.log_std.device)
        normalizer.mean.copy_(self.normalizer.mean[: self.num_actor_obs])
        normalizer.var.copy_(self.normalizer.var[: self.num_actor_obs])
        modules: list[nn.Module] = [normalizer]
        for layer, weights in zip(self.actor.dual_layers(), self.actor.merged(torch.float32), strict=True):
            # a value that comes after the means is left out
            out_features = self.num_actions if layer is self.actor.output_layer else layer.weight.shape[0]
            linear = nn.Linear(layer.weight.shape[1], out_features, device=layer.weight.device)
            weight, bias = weights[:2] if policy == "base" else weights[2:]
            linear.weight.copy_(weight[:out_features])
            linear.bias.copy_(bias[:out_features])
            modules += [linear, activations[layer.activation]()]
        return nn.Sequential(*modules).eval()
