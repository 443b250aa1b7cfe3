"""Pooling a biased and an unbiased sample mean: the best weight, the best split at a given cost, the error.

With n_l low samples of variance σ_l² and bias b against the high expectation, and n_h high samples of variance σ_h²,
the pooled mean ĝ = w ĝ_l + (1 − w) ĝ_h has

    MSE(w) = w² (b² + σ_l² / n_l) + (1 − w)² σ_h² / n_h.

Here ĝ are policy gradients, variances traces of covariance matrices, and a sample is one environment's rollout.
"""

from __future__ import annotations

import math


def pooled_mse(
    weight: float, bias_squared: float, variance_low: float, variance_high: float, n_low: float, n_high: float
) -> float:
    """MSE(w) of the pooled mean, for n_low, n_high > 0 and b² ≥ 0."""
    return weight**2 * (bias_squared + variance_low / n_low) + (1.0 - weight) ** 2 * variance_high / n_high


def precision_weight(
    bias_squared: float,
    variance_low: float,
    variance_high: float,
    n_low: float,
    n_high: float,
    gradient_squared: float = math.inf,
    cap: float = math.inf,
) -> float:
    """The weight w ∈ [0, 1] of the low mean that minimises the pooled mean's error:

        w* = (σ_h² / n_h) / (b² + σ_l² / n_l + σ_h² / n_h),    w ≤ τ ‖G_h‖ / b

    w* does not depend on ‖G_h‖, so that near the high fidelity's optimum a bias w b would stay; the cap τ bounds it by
    a fraction of the gradient that is left. 1 / MSE(w*) = n_l / (b² n_l + σ_l²) + n_h / σ_h².

    Args:
        bias_squared: b²; an unbiased estimate may be negative and then counts as 0: no bias can be seen.
        variance_low, variance_high: σ_l², σ_h² of one sample.
        n_low, n_high: numbers of samples; 0 gives w = 0 or 1.
        gradient_squared: ‖G_h‖²; an estimate below 0 counts as 0.
        cap: τ.

    Returns:
        w, or NaN where a moment is NaN.
    """
    if n_low <= 0:
        return 0.0
    if n_high <= 0:
        return 1.0
    if any(map(math.isnan, (bias_squared, variance_low, variance_high, gradient_squared))):
        return math.nan
    bias_squared = max(bias_squared, 0.0)
    error_high = variance_high / n_high
    error = bias_squared + variance_low / n_low + error_high
    weight = error_high / error if error > 0.0 else 0.0
    if bias_squared > 0.0:
        weight = min(weight, cap * math.sqrt(max(gradient_squared, 0.0) / bias_squared))
    return weight


def optimal_low_samples(
    bias_squared: float, variance_low: float, variance_high: float, cost_low: float, cost_high: float, most: float
) -> float:
    """The number of low samples that minimises MSE(w*) for a given cost c_l n_l + c_h n_h:

        n_l* = clip( (σ_l / b²) (σ_h √(c_h / c_l) − σ_l), 0, most )

    From ∂(1 / MSE) / ∂n_l = σ_l² / (b² n_l + σ_l²)² = (c_l / c_h) / σ_h²: the low fidelity's next sample must bring as
    much precision as the high samples that its cost would buy. It does not depend on the cost itself.

    Args:
        bias_squared: b²; where it is not above 0, no bias can be seen and low samples are as good as high ones.
        variance_low, variance_high: σ_l², σ_h² of one sample.
        cost_low, cost_high: of one sample, in any unit.
        most: upper bound, number of samples at hand.

    Returns:
        n_l* in [0, most], or NaN where an argument is NaN.
    """
    sigma_low, sigma_high = math.sqrt(variance_low), math.sqrt(variance_high)
    gain = sigma_low * (sigma_high * math.sqrt(cost_high / cost_low) - sigma_low)
    if math.isnan(gain) or math.isnan(bias_squared):
        return math.nan
    if gain <= 0.0:
        return 0.0
    return most if bias_squared * most <= gain else gain / bias_squared
