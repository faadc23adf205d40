"""Adam and the decay of its learning rate, for both networks of MIM and for classifiers."""

from collections.abc import Callable

import optax

from mim_jax.train.settings import OptimizerSettings

DECAYS: dict[str, Callable[[float, int], optax.Schedule]] = {
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "exponential": lambda rate, steps: optax.exponential_decay(rate, steps, 0.01),
    "step": lambda rate, steps: optax.piecewise_constant_schedule(
        rate, {steps // 2: 0.1, steps * 3 // 4: 0.1}
    ),
    "constant": lambda rate, steps: optax.constant_schedule(rate),
}


def make_schedule(decay: str, *, learning_rate: float, steps: int) -> optax.Schedule:
    """Learning rate after n of `steps` updates; the paper says only that it decays.

    "cosine", the default, ends at 0, "exponential" at 1 % of the initial rate; "step" divides it by ten at
    half and at three quarters of the steps.
    """
    if decay not in DECAYS:
        raise ValueError(f"unknown learning-rate decay {decay!r}: choose one of {', '.join(DECAYS)}")
    return DECAYS[decay](learning_rate, steps)


def make_optimizer(
    rates: OptimizerSettings, *, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Build Adam, and its learning rate, for a training of `steps` updates."""
    schedule = make_schedule(rates.decay, learning_rate=rates.learning_rate, steps=steps)
    return optax.adam(schedule, b1=rates.b1, b2=rates.b2), schedule
