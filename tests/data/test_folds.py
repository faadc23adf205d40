import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mim_jax.data.folds import Fold, check_folds, group_name, make_folds


def test_220_ungrouped_images_split_into_176_and_44():
    folds = make_folds([f"{i}.jpg" for i in range(220)], folds=5, seed=0, grouped=False)
    assert [(fold.index, len(fold.train), len(fold.test)) for fold in folds] == [
        (k, 176, 44) for k in range(5)
    ]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 12), min_size=13, max_size=80), st.integers(2, 5), st.integers(0, 2**31))
def test_every_image_is_tested_once_and_no_group_is_split(numbers, count, seed):
    groups = [str(number) for number in numbers] + [f"alone {i}" for i in range(count)]
    folds = make_folds(groups, folds=count, seed=seed)
    for fold in folds:
        assert np.all(np.diff(fold.train) > 0) and np.all(np.diff(fold.test) > 0)
        assert sorted([*fold.train, *fold.test]) == list(range(len(groups)))
        assert not {groups[i] for i in fold.train} & {groups[i] for i in fold.test}
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(groups)))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= max(groups.count(group) for group in groups)


def test_large_groups_do_not_unbalance_the_folds():
    groups = ["large"] * 10 + [f"alone {i}" for i in range(30)]
    assert [len(fold.test) for fold in make_folds(groups, folds=4, seed=0)] == [10] * 4


def test_ungrouped_folds_ignore_groups_and_differ_by_one_image_at_most():
    sizes = [len(fold.test) for fold in make_folds(["same"] * 23, folds=4, seed=1, grouped=False)]
    assert sorted(sizes) == [5, 6, 6, 6]


@pytest.mark.parametrize("missing", [float("nan"), None, "", "nan", "N/A", "NULL", "<NA>", np.float32("nan")])
def test_images_without_a_group_are_not_one_patient(missing):
    groups = [missing] * 10 + list("abcdefghij")
    with pytest.raises(ValueError, match=r"^group 0 is .*: give an image .* a group of its own"):
        make_folds(groups, folds=5, seed=0)
    assert [len(fold.test) for fold in make_folds(groups, folds=5, seed=0, grouped=False)] == [4] * 5
    with pytest.raises(ValueError, match=r"^group 0 is"):
        check_folds(make_folds(range(20), folds=5, seed=0), groups)


def test_one_number_is_one_group_however_it_is_written():
    groups = [17, 17.0, "17", " 17.0", np.float64(17), *map(str, range(5))]
    folds = make_folds(groups, folds=3, seed=0)
    assert sorted(len(fold.test) for fold in folds) == [2, 3, 5]
    assert group_name("17.5") == "17.5" and group_name("017") == "017" and group_name(1e22) == "1e+22"


def test_the_seed_decides():
    groups = [str(i // 2) for i in range(60)]

    def tests(seed):
        return [fold.test.tolist() for fold in make_folds(groups, folds=5, seed=seed)]

    assert tests(3) == tests(3)
    assert tests(3) != tests(4)
    # Shuffled: the first test set is not simply the first twelve images or every fifth group.
    assert tests(3)[0] != list(range(12))


@pytest.mark.parametrize(
    ("groups", "folds", "message"),
    [
        (["a", "b", "c"], 5, r"3 images .* 5 folds.*--config.data.folds=3 at most"),
        (["a"], 5, "at least two are needed"),
        (
            ["a", "a", "b", "b", "c", "c"],
            5,
            r"6 images .* 3 groups.* 5 folds.*--config.data.folds=3 at most",
        ),
        (["a", "b", "c"], 1, "folds=1: at least 2"),
    ],
)
def test_too_few_images_or_groups(groups, folds, message):
    with pytest.raises(ValueError, match=message):
        make_folds(groups, folds=folds, seed=0)


def test_check_folds_sees_a_leak_and_a_gap():
    split = [Fold(0, np.array([2, 3]), np.array([0, 1])), Fold(1, np.array([0, 1]), np.array([2, 3]))]
    check_folds(split, ["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="fold 0: 1 groups are in both"):
        check_folds(split, ["a", "b", "b", "c"])
    with pytest.raises(ValueError, match="hold 2 images, 2 of them different"):
        check_folds(split[:1], ["a", "a", "b", "b"])
    overlapping = [Fold(0, np.array([1, 2, 3]), np.array([0, 1])), split[1]]
    with pytest.raises(ValueError, match="fold 0: training and test images overlap"):
        check_folds(overlapping, ["a", "b", "c", "d"])
