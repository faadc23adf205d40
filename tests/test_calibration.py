"""The promise of the threshold, by simulation, and the cases that cannot carry one."""

import numpy as np
import pytest

from mim_jax.calibration import PAPER_THRESHOLD, miss_rate_threshold


def missed_share(draw, *, count: int, miss_rate: float, trials: int) -> float:
    """Share of new scores below the threshold from `count` scores, over fresh calibration sets."""
    missed = 0
    for _ in range(trials):
        *known, new = draw(count + 1)
        missed += new < miss_rate_threshold(known, miss_rate=miss_rate)
    return missed / trials


@pytest.mark.parametrize(("count", "miss_rate", "rank"), [(44, 0.05, 2), (19, 0.05, 1), (30, 0.2, 6)])
def test_the_promise_holds_and_is_not_wasteful(count, miss_rate, rank):
    generator = np.random.default_rng(0)
    expected = rank / (count + 1)
    trials = 4000
    error = 4 * np.sqrt(expected * (1 - expected) / trials)
    share = missed_share(lambda n: generator.normal(size=n), count=count, miss_rate=miss_rate, trials=trials)
    assert abs(share - expected) < error
    tied = missed_share(
        lambda n: generator.integers(0, 6, n), count=count, miss_rate=miss_rate, trials=trials
    )
    assert tied <= expected + error


def test_it_is_the_order_statistic():
    scores = np.random.default_rng(1).permutation(np.arange(1, 101)) / 100
    assert miss_rate_threshold(scores, miss_rate=0.05) == 0.05
    assert miss_rate_threshold(scores[:99], miss_rate=0.29) == np.sort(scores[:99])[28]
    assert miss_rate_threshold([0.9, 0.8, 0.7], miss_rate=0.25) == 0.7


def test_too_few_scores_name_how_many_would_do():
    for count, miss_rate, needed in ((44, 0.01, 99), (18, 0.05, 19), (0, 0.1, 9), (13, 0.07, 14)):
        with pytest.raises(ValueError, match=rf"{count} calibration images .* at least {needed},"):
            miss_rate_threshold(np.zeros(count), miss_rate=miss_rate)
        assert miss_rate_threshold(np.zeros(needed), miss_rate=miss_rate) == 0


def test_unfit_arguments_are_named():
    for miss_rate in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            miss_rate_threshold(np.zeros(50), miss_rate=miss_rate)
    with pytest.raises(ValueError, match="1 that are not"):
        miss_rate_threshold([0.1, np.nan, 0.3], miss_rate=0.5)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        miss_rate_threshold(np.zeros((2, 3)), miss_rate=0.5)


def test_threshold_of_the_paper():
    assert PAPER_THRESHOLD == 0.8526
