"""The command line: parse the arguments and call `mim_jax.cli.main.execute`.

`launch.py`, the command `mim_jax` and `python -m mim_jax` all run this module. The configuration is the file
given by --config; without one, the configuration recorded in --workdir; otherwise configs/mim.py.
"""

import ast
import difflib
import os
import re
import runpy
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict

import mim_jax
from mim_jax.cli.console import say
from mim_jax.data.quality import Gate
from mim_jax.train import workdir as folders

USAGE = """MIM from the command line: train, evaluate, report, score.

  mim_jax --workdir=RUN [--config=configs/mim.py:VARIANT] [--config.FIELD=VALUE ...]
  mim_jax --mode=score --workdir=RUN [--output=FILE.csv] FILE_OR_FOLDER ...
  mim_jax --mode=bulk --input=PHOTOS --detector=EXPORT_OR_RUN --output=FOLDER
  mim_jax --mode=compare --workdir=FOLDER RUN RUN ...
  mim_jax --mode=check_data --config.data.root=FOLDER
  mim_jax --mode=train|evaluate|export|export_app|serve --workdir=RUN

`python launch.py` and `python -m mim_jax` are the same command.

  --config: configuration file and :variant; default: the one recorded in --workdir, or configs/mim.py.
  --config.FIELD=VALUE: override one field; the configuration file explains each.
"""
DEFAULT = "configs/mim.py"
MODES = [
    "run",
    "train",
    "evaluate",
    "score",
    "bulk",
    "export",
    "export_app",
    "serve",
    "check_data",
    "compare",
]
# Modes that use a finished run, and the fields each accepts; all others come from the run's configuration.
HEEDED: dict[str, tuple[str, ...]] = {
    "score": ("data.gate",),
    "bulk": ("data.gate",),
    "serve": ("data.gate",),
    "export": (),
    "export_app": (),
    "compare": ("evaluation.resamples", "seed"),
}
flags.DEFINE_string("workdir", None, "Folder of the run; giving it again resumes the run.")
flags.DEFINE_enum("mode", "run", MODES, "run trains and reports; score takes files, compare takes runs.")
flags.DEFINE_string(
    "output", None, "CSV file for --mode=score, default WORKDIR/scored.csv; output folder for --mode=bulk."
)
flags.DEFINE_string(
    "input", None, "Images for --mode=bulk: a folder, a glob, Parquet or CSV; local or in a bucket."
)
flags.DEFINE_string("detector", None, "Detector for --mode=bulk: an export, or the workdir of a run.")
flags.DEFINE_string("digest", None, "Required digest of the --detector export, as printed by --mode=export.")
flags.DEFINE_string("column", None, "Column of paths or bytes in the table for --mode=bulk; default: path.")
flags.DEFINE_string("address", None, "Ray cluster for --mode=bulk; by default Ray starts on this machine.")
flags.DEFINE_integer("actors", None, "Ray actors for --mode=bulk; default: all that fit; 0 = without Ray.", 0)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of several; not needed under SLURM (srun).")
flags.DEFINE_integer("processes", None, "Number of processes, one per host; with --coordinator.")
flags.DEFINE_integer("process", None, "Index of this process, from 0; with --coordinator.")
flags.DEFINE_bool("profile", False, "Write a trace of one training dispatch to WORKDIR/profile.")
flags.DEFINE_integer("fold", 0, "Fold to export to the app.", 0)
flags.DEFINE_enum(
    "device", "auto", ["auto", "cpu", "gpu"], "Device to compute on; gpu is an error if none is found."
)
flags.DEFINE_string("app", None, "App folder for --mode=serve; by default WORKDIR/app if it exists.")
flags.DEFINE_string("host", "127.0.0.1", "Address that --mode=serve listens on.")
flags.DEFINE_integer("port", 8000, "Server port; 0 = any free port.", 0, 65535)

Override = tuple[str, str | None]  # field name and the text of its value
_CONFIG = re.compile(r"--?config(?:\.([^=]+))?(?:=(.*))?", re.DOTALL)
_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def main() -> int:
    """Run the command line; a mistake gives one line with the valid choices, not a traceback."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115  # replaces streams that the caller closed
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    program, *arguments = sys.argv
    if {"-h", "--help", "-help", "--helpshort", "--helpfull"} & set(arguments):
        _, _, listed = flags.FLAGS.module_help(sys.modules[__name__]).lstrip().partition("\n")
        say(f"{USAGE}{listed}")
        return 0
    try:
        file, overrides, rest = split(arguments)
        paths = flags.FLAGS([program, *rest])[1:]
        own = flags.FLAGS.get_key_flags_for_module(__name__)
        given: dict[str, Any] = {each.name: each.value for each in own}
        mode = given.pop("mode")
        run = given["detector" if mode == "bulk" else "workdir"]
        config = configure(mode, run, paths, file, overrides)
    except (flags.Error, ValueError, OSError) as error:
        say(f"mim_jax: {error}", sys.stderr)
        return 1
    from mim_jax.cli.main import execute

    logging.set_verbosity(logging.FATAL)  # other packages log attempts, and errors that we report
    code = [str(find_file(file))] if file else []
    return execute(mode, config=config, paths=paths, code=code, **given)


def split(arguments: Sequence[str]) -> tuple[str, list[Override], list[str]]:
    """Split arguments into the configuration file or "", (field, text or None) in order, and the rest.

    >>> split(["--config=a.py:b", "--config.seed=1", "--mode=run", "--config.data.strict", "c.jpg"])
    ('a.py:b', [('seed', '1'), ('data.strict', None)], ['--mode=run', 'c.jpg'])
    """
    file, overrides, rest = "", list[Override](), list[str]()
    waiting = list(arguments)
    while waiting and waiting[0] != "--":
        argument = waiting.pop(0)
        matched = _CONFIG.fullmatch(argument)
        if not matched:
            rest.append(argument)
        elif matched[1]:
            overrides.append((matched[1], matched[2]))
        elif matched[2] or waiting:
            file = matched[2] or waiting.pop(0)
        else:
            raise ValueError(f"--config needs a file: --config={DEFAULT}:quick")
    return file, overrides, rest + waiting


def configure(
    mode: str, workdir: str | None, paths: Sequence[str], file: str, overrides: Sequence[Override]
) -> dict[str, Any]:
    """Return the configuration that the arguments describe, as a plain dict.

    Raises:
      ValueError: unknown file or field, a value of the wrong type, or a field that the mode does not accept.
    """
    run = workdir if mode != "compare" else paths[0] if paths else None
    if run is None and mode in HEEDED:
        return {}  # `execute` reports the missing workdir
    recorded = _recorded(Path(run).expanduser(), mode) if run else None
    config = ConfigDict(load_file(file or DEFAULT) if file or recorded is None else recorded)
    fields = folders.flatten(config.to_dict())
    for name, text in overrides:
        if name not in fields:
            raise ValueError(f"no field config.{name}; {_suggest(name, list(fields))}")
        config.update_from_flattened_dict({name: read_value(name, text, fields[name])})
    found = config.to_dict()
    heeded = HEEDED.get(mode)
    if recorded is not None and heeded is not None:
        for difference in folders.differences(recorded, found, heeded, of_both=True)[:1]:
            way = "change it with --mode=evaluate" if difference.startswith("decision.") else "leave it out"
            fields_heeded = " and ".join(f"config.{name}" for name in heeded)
            what = f"accepts only {fields_heeded}" if heeded else "uses the configuration of the run"
            raise ValueError(f"--mode={mode} {what}, not config.{difference}: {way}")
    return found


def _recorded(run: Path, mode: str) -> dict[str, Any] | None:
    """Read the configuration recorded by a run, or by a run of several seeds; None if there is no run."""
    if mode == "bulk" and (run / "manifest.json").is_file():  # an export, which has no configuration
        return {"data": {"gate": asdict(Gate())}}
    if mode in HEEDED or (run / folders.CONFIG).exists():
        return folders.read_config(run)
    if seeds := folders.find_seeds(run):
        return folders.read_config(run / f"seed_{seeds[0]}") | {"seeds": seeds}
    return None


def find_file(name: str) -> Path:
    """Find the file of `FILE.py:variant`, in the current folder or the one with the package and configs/."""
    path = name.partition(":")[0]
    for place in (Path(path).expanduser(), Path(mim_jax.__file__).parents[1] / path):
        if place.is_file():
            return place.resolve()
    raise ValueError(f"there is no configuration file {path}: name one with --config=FILE.py:variant")


def load_file(name: str) -> dict[str, Any]:
    """Load `FILE.py:variant`."""
    file, variant = find_file(name), name.partition(":")[2]
    sys.path.insert(0, str(file.parents[1]))  # one file in configs/ builds on another
    try:
        get_config = runpy.run_path(str(file))["get_config"]
        config = get_config(variant) if variant else get_config()
        return config.to_dict()
    except ValueError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ValueError(f"{file} defines no configuration ({type(error).__name__}: {reason})") from error
    finally:
        sys.path.pop(0)


def read_value(name: str, text: str | None, before: Any) -> Any:
    """Parse the text of a field as the type of `before`; for a bool, no text means True.

    >>> read_value("training.epochs", "3", 300), read_value("seeds", "0,1", ()), read_value("a", "1", 0.5)
    (3, (0, 1), 1.0)
    """
    try:
        if isinstance(before, bool):
            return True if text is None else _SWITCH[text.lower()]
        if text is None:
            raise ValueError
        if isinstance(before, tuple | list):
            return _read_tuple(text)
        return type(before)(text)
    except (ValueError, KeyError):
        kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
        kind = kinds.get(type(before), "values separated by commas")
        raise ValueError(f"config.{name} must be {kind}, got {repr(text) if text else 'nothing'}") from None


def _read_tuple(text: str) -> tuple[Any, ...]:
    try:
        found = ast.literal_eval(text) if text.strip() else ()
    except (ValueError, SyntaxError):
        return tuple(part.strip() for part in text.split(","))
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _suggest(name: str, fields: list[str]) -> str:
    section, last = name.partition(".")[0], name.rpartition(".")[2]
    alike = [each for each in fields if each.endswith(f".{last}")]
    if near := difflib.get_close_matches(name, fields, 1) or alike:
        return f"did you mean config.{near[0]}?"
    inside = [each for each in fields if each.startswith(f"{section}.")]
    known = inside or dict.fromkeys(each.partition(".")[0] for each in fields)
    return f"there are {', '.join(f'config.{each}' for each in known)}"
