"""The promise over whole invented runs: folds, groups, cutoffs and all."""

import numpy as np
import pytest
from test_decisions import GROUPS, drawn

from mim_jax.evaluate.decisions import reliability


def test_promises_are_kept_on_average_over_runs():
    """Forty runs of four folds: sixty cases of mpox and sixty of others in each, two images a case."""
    rates, runs = (0.05, 0.1, 0.3), 40
    missed, alarms = np.zeros(len(rates)), np.zeros((len(rates), 2))
    for seed in range(runs):
        found = reliability(drawn(seed), metric="ssim", positive="mpox", class_groups=GROUPS, rates=rates)
        assert [row["rate"] for row in found] == list(rates)
        missed += [row["missed"]["value"] for row in found]
        alarms += [[each["value"] for each in row["false_alarms"].values()] for row in found]
        assert all(row["missed"]["cases"] == 60 for row in found)
        decided = [row["training"]["decided"] + row["others"]["decided"] for row in found]
        assert decided == sorted(decided)  # a lower promise is a wider band
    for place, rate in enumerate(rates):
        error = 4 * np.sqrt(rate * (1 - rate) / (60 * runs))
        assert abs(missed[place] / runs - rate) < error + 0.022  # floor(rate (n + 1)) / (n + 1) is below rate
        assert missed[place] / runs < rate + error
        assert np.all(alarms[place] / runs < rate + error)


def test_rates_that_the_folds_cannot_carry_are_left_out():
    found = reliability(drawn(0, folds=2, positives=10), metric="ssim", positive="mpox", class_groups=GROUPS)
    assert min(row["rate"] for row in found) == pytest.approx(0.2)  # five groups of the other fold: 1/6
