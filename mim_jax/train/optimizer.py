"""Adam and the decay of its learning rate, for both networks of MIM and for classifiers."""

from collections.abc import Callable

import optax

from mim_jax.train.settings import OptimizerSettings

# The paper says only that the rate decays: here to 0 by default ("cosine"), to 1 % in "exponential", and to a
# tenth twice in "step".
DECAYS: dict[str, Callable[[float, int], optax.Schedule]] = {
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "exponential": lambda rate, steps: optax.exponential_decay(rate, steps, 0.01),
    "step": lambda rate, steps: optax.piecewise_constant_schedule(
        rate, {steps // 2: 0.1, steps * 3 // 4: 0.1}
    ),
    "constant": lambda rate, steps: optax.constant_schedule(rate),
}


def make_optimizer(
    rates: OptimizerSettings, *, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Build Adam, and its learning rate after n updates, for a training of `steps` updates."""
    schedule = DECAYS[rates.decay](rates.learning_rate, steps)
    return optax.adam(schedule, b1=rates.b1, b2=rates.b2), schedule
