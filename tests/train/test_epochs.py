"""Each epoch has its own order of images, whatever other epochs are run with it."""

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.train.epochs import epoch_orders, steps_per_epoch


def test_each_epoch_shuffles_all_images_in_an_order_of_its_own():
    orders = np.asarray(epoch_orders(jax.random.key(0), 20, jnp.arange(3)))
    assert np.array_equal(np.sort(orders), np.tile(np.arange(20), (3, 1)))
    assert len({tuple(order) for order in orders.tolist()}) == 3
    # A resumed run, which asks only for the later epochs, gets the same.
    np.testing.assert_array_equal(epoch_orders(jax.random.key(0), 20, jnp.arange(1, 3)), orders[1:])
    assert not np.array_equal(epoch_orders(jax.random.key(1), 20, jnp.arange(3)), orders)


def test_the_short_last_batch_counts_unless_dropped():
    assert [steps_per_epoch(176, 128, drop_last=drop) for drop in (False, True)] == [2, 1]
    assert [steps_per_epoch(256, 128, drop_last=drop) for drop in (False, True)] == [2, 2]
