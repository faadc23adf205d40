"""MIM from the command line: flags in, one call out.

python launch.py --config=configs/mim.py:quick --workdir=runs/quick
python launch.py --mode=score --workdir=runs/quick photo.jpg folder/
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    "configs/mim.py",
    "Configuration, with :variant after the file; --config.a.b=value overrides a field.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")
_MODE = flags.DEFINE_enum(
    "mode",
    "run",
    ["run", "train", "evaluate", "score", "check_data"],
    "run = train, evaluate and report; score = images or folders named after the flags; check_data = look "
    "at the data only.",
)
_DEVICE = flags.DEFINE_enum(
    "device", "auto", ["auto", "cpu", "gpu"], "Where to compute; gpu is an error where there is none."
)


def main(arguments: list[str]) -> int:
    logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it writes
    from mim_jax import commands  # after the flags are read: --help and slips of the pen answer at once

    if _MODE.value != "score" and len(arguments) > 1:
        raise app.UsageError(f"unexpected argument {arguments[1]!r}: only --mode=score takes files")
    if _MODE.value != "check_data" and not _WORKDIR.value:
        raise app.UsageError(f"--mode={_MODE.value} needs --workdir=FOLDER")
    return commands.execute(
        _MODE.value,
        config=_CONFIG.value.to_dict(),
        workdir=_WORKDIR.value,
        device=_DEVICE.value,
        paths=arguments[1:],
    )


def run() -> None:
    """Runs main; a mistake in the configuration is one sentence, not a traceback."""
    try:
        app.run(main)
    except (ValueError, AttributeError, OSError) as error:
        sys.exit(f"launch.py: {error}")


if __name__ == "__main__":
    run()
