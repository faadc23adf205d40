"""MIM from the command line of a checkout; `mim_jax` is the same command once the package is installed.

python launch.py --config=configs/mim.py:quick --workdir=runs/quick
python launch.py --mode=score --workdir=runs/quick photo.jpg folder/
python launch.py --help
"""

import sys

from mim_jax.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
