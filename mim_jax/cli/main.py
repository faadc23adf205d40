"""Dispatch the command's modes; errors become one line on stderr and an exit status.

Exit status: 0: done, or stopped by SIGTERM (resumable); 1: error, with a one-line message; 2: some files
could not be used; 130: stopped by Ctrl-C (resumable).
"""

import contextlib
import errno
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mim_jax.cli import runs
from mim_jax.cli.console import INTERRUPTED, say
from mim_jax.cli.runtime import prepare, stored_programs
from mim_jax.train import config as configuration
from mim_jax.train import devices
from mim_jax.train.preemption import Terminated, terminable

RESUMABLE = ("run", "train", "evaluate")


def execute(
    mode: str,
    *,
    config: Mapping[str, Any],
    workdir: str | None,
    device: str,
    paths: Sequence[str],
    code: Sequence[str] | None = None,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    profile: bool = False,
    fold: int = 0,
    app: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    output: str | None = None,
    **of_bulk: Any,
) -> int:
    """Run one mode and return the exit status.

    `code`: files besides modules that can change a training, see `StoredPrograms`; None = store no programs;
    `coordinator`, `processes` and `process`: see `devices.join`; `profile` records one training dispatch;
    `fold`: see `export_app`; `app`, `host`, `port`: see `serve`; `output`: see `score`; the rest: see `bulk`.
    """
    how = "; the same command with the same --workdir resumes from the last checkpoint"
    how = "; the same command resumes after the parts already written" if mode == "bulk" else how
    stopped = f"stopped{how if mode in (*RESUMABLE, 'bulk') else ''}"
    try:
        if mode not in ("score", "compare") and paths:
            raise ValueError(
                f"unexpected argument {paths[0]!r}: --mode=score takes files, --mode=compare workdirs"
            )
        if mode not in ("check_data", "bulk") and not workdir:
            raise ValueError(f"--mode={mode} needs --workdir=FOLDER")
        if mode in RESUMABLE:
            devices.join(coordinator, processes, process)
        elif coordinator:
            raise ValueError(f"--mode={mode} runs in one process: leave --coordinator out")
        if profile and mode not in ("run", "train"):
            raise ValueError(f"--profile records training, and --mode={mode} does not train: leave it out")
        on_ray = False
        if mode == "bulk":
            from mim_jax.cli import bulk  # only here: it imports pyarrow

            if workdir:
                raise ValueError("--mode=bulk takes its detector from --detector: leave --workdir out")
            on_ray = bulk.check(output=output, **of_bulk)
        elif given := [name for name, value in of_bulk.items() if value is not None]:
            raise ValueError(f"--{given[0]} belongs to --mode=bulk, not to --mode={mode}: leave it out")
        if not on_ray:  # Ray forks, and a process that has started JAX does not survive a fork
            prepare(device, any_thread=mode in ("bulk", "serve"))
        if output and mode not in ("score", "bulk"):
            raise ValueError(f"--output belongs to --mode=score and bulk, not to --mode={mode}: leave it out")
        if mode == "bulk":
            with terminable(stopped):
                return bulk.bulk(config, output=output or "", on_ray=on_ray, device=device, **of_bulk)
        settings, folder = configuration.parse(config), workdir or ""
        programs = None if code is None else stored_programs(code)
        with terminable(stopped) if mode in RESUMABLE else contextlib.nullcontext():
            match mode:
                case "run":
                    return runs.run(settings, folder, profile=profile, programs=programs)
                case "train":
                    return runs.run(settings, folder, evaluation=False, profile=profile, programs=programs)
                case "evaluate":
                    return runs.run(settings, folder, training=False)
                case "check_data":
                    return runs.check_data(settings)
                case "compare":
                    return runs.compare(settings, folder, paths)
                case "score":
                    from mim_jax.cli import score  # so does this

                    return score.score(settings, folder, paths, output=output)
                case "export":
                    return runs.export(folder)
                case "export_app":
                    return runs.export_app(folder, fold=fold)
                case "serve":
                    return runs.serve(settings, folder, app=app, host=host, port=port)
                case _:
                    raise ValueError(f"unknown mode {mode!r}")
    except KeyboardInterrupt as request:
        say(f"mim_jax: {stopped}", sys.stderr)
        return 0 if isinstance(request, Terminated) else INTERRUPTED
    except Exception as error:
        from mim_jax.train.trainer import Interrupted, NonFiniteLoss

        if isinstance(error, Interrupted):
            say(f"mim_jax: {error}", sys.stderr)
            return 0 if error.number == signal.SIGTERM else INTERRUPTED
        if isinstance(error, OSError) and workdir and not Path(workdir).expanduser().exists():
            error = ValueError(
                f"the workdir {workdir} was removed during the run ({error}): restore it, or start again"
            )
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            error = ValueError(
                f"the disk of {workdir or output} is full: free space and run the same command again; it "
                "resumes from the last complete state"
            )
        if isinstance(error, ValueError | OSError | NonFiniteLoss):
            say(f"mim_jax: {error}", sys.stderr)
            return 1
        raise
