"""The modes of launch.py; only here anything is printed, and global state of JAX changed."""
