"""MIM from the command line: flags in, one call out.

python launch.py --config=configs/mim.py:quick --workdir=runs/quick
python launch.py --mode=score --workdir=runs/quick photo.jpg folder/
"""

import difflib
import runpy
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = "configs/mim.py"
MODES = ["run", "train", "evaluate", "score", "export", "export_app", "serve", "check_data", "compare"]
flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")
flags.DEFINE_enum("mode", "run", MODES, "run trains and reports; score takes files, compare runs.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of several; not under SLURM (srun).")
flags.DEFINE_integer("processes", None, "Number of processes, one a host; with --coordinator.")
flags.DEFINE_integer("process", None, "Index of this process, from 0; with --coordinator.")
flags.DEFINE_bool("profile", False, "Write a trace of a dispatch of training to WORKDIR/profile.")
flags.DEFINE_integer("fold", 0, "Fold to export to the app.", 0)
flags.DEFINE_enum(
    "device", "auto", ["auto", "cpu", "gpu"], "Where to compute; gpu is an error if none is found."
)
flags.DEFINE_string("app", None, "App folder for --mode=serve; by default WORKDIR/app if it exists.")
flags.DEFINE_string("host", "127.0.0.1", "Address that --mode=serve answers at.")
flags.DEFINE_integer("port", 8000, "Server port; 0 = any that is free.", 0, 65535)


def parse(arguments: list[str]) -> list[str]:
    """Parse the flags; a mistake is one sentence that names what exists, not a traceback."""
    try:
        # Here and not above, because it reads the overrides at once.
        config_flags.DEFINE_config_file("config", CONFIG, "File and :variant; --config.a.b=value overrides.")
        rest = flags.FLAGS(arguments)
        _ = flags.FLAGS.config.is_locked  # a file that cannot be loaded says so when it is first used
        return rest
    except AttributeError as error:
        from mim_jax.train.workdir import flatten

        path = next((a.split("=", 1)[1] for a in reversed(arguments) if a.startswith("--config=")), CONFIG)
        config = runpy.run_path(path.split(":")[0])["get_config"]().to_dict()
        fields = list(flatten(config))
        given = [argument.split("=")[0].removeprefix("--config.") for argument in arguments[1:]]
        unknown = next((name for name in given if "." in name and name not in fields), str(error))
        near = difflib.get_close_matches(unknown, fields, 1)
        hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(fields)}"
        sys.exit(f"launch.py: no field {unknown}; {hint}")
    except (flags.Error, ValueError, TypeError, OSError) as error:
        # An error inside the configuration file arrives as the text of a traceback, its message last.
        sys.exit(f"launch.py: {str(error).strip().splitlines()[-1].strip().removeprefix('ValueError: ')}")


def main(arguments: list[str]) -> int:
    from mim_jax.cli import main as commands

    logging.set_verbosity(logging.FATAL)  # others log what they try, and errors that we raise as sentences
    flag = flags.FLAGS
    names = "workdir device coordinator processes process profile fold app host port"
    given: dict[str, Any] = {name: flag[name].value for name in names.split()}
    return commands.execute(flag.mode, config=flag.config.to_dict(), paths=arguments[1:], **given)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
