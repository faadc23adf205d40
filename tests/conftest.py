"""Shared settings: implicit rank promotion is an error, so that a broadcasting slip cannot pass unseen."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
