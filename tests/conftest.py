"""Shared settings: implicit rank promotion is an error, so that a broadcasting slip cannot pass unseen."""

import signal

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# A shell in the background ignores Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
