"""The modes of launch.py; only this package prints or changes global state of JAX."""
