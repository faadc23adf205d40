"""`python -m mim_jax`: the command line."""

import sys

from mim_jax.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
