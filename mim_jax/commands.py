"""What launch.py can do: each mode as a function, and mistakes as sentences on stderr with an exit status.

Exit status: 0 done, or as much as SIGTERM left time for, to be resumed; 1 a mistake or a failure, told in one
sentence; 2 some files could not be used; 130 stopped by Ctrl-C, to be resumed.
"""

import contextlib
import errno
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from mim_jax import devices
from mim_jax.heap import keep_freed_memory
from mim_jax.runtime import Profile, choose_device, use_compilation_cache
from mim_jax.stopping import Terminated, terminable
from mim_jax.uses import UNUSABLE_FILES, compare, export, export_app, score, serve

INTERRUPTED = 130
RESUMABLE = ("run", "train", "evaluate")


def execute(
    mode: str,
    *,
    config: Mapping[str, Any],
    workdir: str | None,
    device: str,
    paths: Sequence[str],
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    profile: bool = False,
    fold: int = 0,
    app: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> int:
    """Runs one mode and returns the exit status.

    `coordinator`, `processes` and `process` as `devices.join`; `profile` records a dispatch of training;
    `fold` as `export_app`; `app`, `host` and `port` as `serve`.
    """
    how = "; the same command with the same --workdir goes on from the last checkpoint"
    stopped = f"stopped{how if mode in RESUMABLE else ''}"
    try:
        if mode not in ("score", "compare") and paths:
            raise ValueError(
                f"unexpected argument {paths[0]!r}: --mode=score takes files, --mode=compare workdirs"
            )
        if mode != "check_data" and not workdir:
            raise ValueError(f"--mode={mode} needs --workdir=FOLDER")
        if mode in RESUMABLE:
            devices.join(coordinator, processes, process)
        elif coordinator:
            raise ValueError(f"--mode={mode} is the work of one process: leave --coordinator out")
        if profile and mode not in ("run", "train"):
            raise ValueError(f"--profile records training, and --mode={mode} does not train: leave it out")
        choose_device(device)
        use_compilation_cache()
        keep_freed_memory()
        options: dict[str, dict[str, Any]] = {
            "run": {"profile": profile},
            "train": {"profile": profile},
            "export_app": {"fold": fold},
            "serve": {"app": app, "host": host, "port": port},
        }
        with terminable(stopped) if mode in RESUMABLE else contextlib.nullcontext():
            return MODES[mode](config, workdir or "", paths, **options.get(mode, {}))
    except KeyboardInterrupt as request:
        print(f"launch.py: {stopped}", file=sys.stderr)
        return 0 if isinstance(request, Terminated) else INTERRUPTED
    except Exception as error:
        from mim_jax.trainer import Interrupted, NonFiniteLoss

        if isinstance(error, Interrupted):
            print(f"launch.py: {error}", file=sys.stderr)
            return 0 if error.number == signal.SIGTERM else INTERRUPTED
        if isinstance(error, OSError) and workdir and not Path(workdir).expanduser().exists():
            error = ValueError(
                f"the workdir {workdir} has been removed under way ({error}): bring it back, or begin anew"
            )
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            error = ValueError(
                f"the disk of {workdir} is full: free space and start the same command again; it goes on "
                "from the newest whole checkpoint"
            )
        if isinstance(error, ValueError | OSError | NonFiniteLoss):
            print(f"launch.py: {error}", file=sys.stderr)
            return 1
        raise


def run(
    config: Mapping[str, Any],
    workdir: str,
    paths: Sequence[str],
    *,
    training: bool = True,
    evaluation: bool = True,
    profile: bool = False,
) -> int:
    """Trains what is not trained yet, evaluates, and writes the report."""
    if config.get("seeds"):
        return run_seeds(config, workdir, training=training, evaluation=evaluation, profile=profile)

    began = time.perf_counter()
    kind = _kind(config)
    with contextlib.ExitStack() as held:
        opened = _open(config, workdir, kind, held, training=training, evaluation=evaluation)
        hint = kind.advice(config, opened.dataset) if evaluation and devices.is_first() else None
        if hint:
            print(f"launch.py: {hint}", file=sys.stderr)
        if training:
            _train([opened], kind, profile=profile)
        with devices.together():
            if evaluation and devices.is_first():
                from mim_jax.recorder import Recorder

                with Recorder(opened.path) as recorder:
                    page = kind.evaluate(
                        config, opened.path, opened.dataset, opened.clinical, recorder, began=began
                    )
                print(f"report: {page}")
    return 0


class Opened(NamedTuple):
    """A run whose folder is claimed and whose images are loaded."""

    config: Mapping[str, Any]
    path: Path
    dataset: Any
    clinical: Any


def _open(
    config: Mapping[str, Any],
    workdir: str,
    kind: "Kind",
    held: contextlib.ExitStack,
    *,
    training: bool,
    evaluation: bool,
) -> Opened:
    """Claims the folder, which the first process keeps others out of until `held` is closed."""
    from mim_jax import protocol
    from mim_jax.recorder import merge_events
    from mim_jax.trainer import check_places
    from mim_jax.workdir import check, claim, hold, share

    with devices.together():
        kind.check(config)
        if training:
            check_places(config["training"])

    def work() -> Opened:
        first = devices.is_first()
        if first:
            if not training and not (Path(workdir).expanduser() / "config.json").exists():
                raise ValueError(f"{workdir} is not the workdir of a run: train it first with --mode=train")
            held.enter_context(hold(check(workdir, config)))
        dataset = load(config)
        kind.check_data(config, dataset, evaluation=evaluation)
        clinical = protocol.load_clinical(config) if evaluation and first else None
        data = {"digest": dataset.digest(), "images": len(dataset)}
        # After the data: what they cannot carry should not claim a folder.
        path = claim(workdir, config, data) if first else share(workdir, data)
        if first:
            merge_events(path)  # of processes that were stopped
        return Opened(config, path, dataset, clinical)

    return devices.in_turn(work)


def _train(runs: Sequence[Opened], kind: "Kind", *, profile: bool) -> None:
    """Trains what is not trained yet, of several runs at once."""
    from mim_jax import trainer
    from mim_jax.recorder import Recorder, merge_events

    with devices.together(), contextlib.ExitStack() as stack:
        trainings = []
        record = Profile(runs[0].path / "profile")
        for config, path, dataset, _ in runs:
            recorder = stack.enter_context(Recorder(path, process=jax.process_index()))
            name = f"seed {config['seed']}, " if len(runs) > 1 else ""
            trainings += [
                replace(
                    training,
                    title=name + training.title,
                    recorder=recorder,
                    begin=record.begin(training.begin) if profile else training.begin,
                )
                for training in kind.trainings(config, path, dataset)
            ]
        trainer.train(trainings, runs[0].config["training"], trainings[0].recorder)
        if profile:
            few = "none, for no program was dispatched twice: train more epochs, or in a new workdir"
            print(f"profile: {record.folder if record.done else few}")
    with devices.together():
        if devices.is_first():
            for opened in runs:
                merge_events(opened.path)


class Kind(NamedTuple):
    """What a run of this kind consists of."""

    check: Callable[..., None]
    check_data: Callable[..., None]
    trainings: Callable[..., Iterable[Any]]
    evaluate: Callable[..., Path]  # imported when it is called: mistakes should not wait for its figures
    advice: Callable[..., str | None] = lambda *_: None  # where the evaluation takes long


def _kind(config: Mapping[str, Any]) -> Kind:
    if "classifier" in config:
        from mim_jax import classifier_experiment, classifier_protocol

        def evaluate_classifier(*args: Any, **options: Any) -> Path:
            from mim_jax import classifier_results

            return classifier_results.evaluate(*args, **options)

        checks = classifier_protocol.check, classifier_protocol.check_data
        return Kind(*checks, classifier_experiment.trainings, evaluate_classifier)

    from mim_jax import effort, experiment, protocol

    def evaluate_mim(*args: Any, **options: Any) -> Path:
        from mim_jax import results

        return results.evaluate(*args, **options)

    return Kind(protocol.check, protocol.check_data, experiment.trainings, evaluate_mim, effort.advice)


def run_seeds(
    config: Mapping[str, Any], workdir: str, *, training: bool, evaluation: bool, profile: bool
) -> int:
    """One run for each of `config.seeds`, in `workdir/seed_K`, and a page that shows their spread.

    Where several can train at once all are trained before the first is evaluated.
    """
    seeds = list(dict.fromkeys(config["seeds"]))
    folders = [Path(workdir).expanduser().resolve() / f"seed_{seed}" for seed in seeds]
    configs = [{**config, "seed": seed, "seeds": ()} for seed in seeds]
    if training and jax.device_count() > 1:
        kind = _kind(config)
        how = {"training": True, "evaluation": evaluation}
        pairs = zip(configs, folders, strict=True)
        with contextlib.ExitStack() as held:
            opened = [_open(one, str(folder), kind, held, **how) for one, folder in pairs]
            _train(opened, kind, profile=profile)
    for one, folder in zip(configs, folders, strict=True):
        print(f"seed {one['seed']}: {folder}", file=sys.stderr)
        run(one, str(folder), (), training=training, evaluation=evaluation, profile=profile)
    if evaluation and devices.is_first():
        from mim_jax.report import write_seeds
        from mim_jax.workdir import read_json

        results = {folder.name: read_json(folder / "results.json") for folder in folders}
        print(f"report of all seeds: {write_seeds(folders[0].parent, results)}")
    return 0


def train(config: Mapping[str, Any], workdir: str, paths: Sequence[str], *, profile: bool = False) -> int:
    """Only trains."""
    return run(config, workdir, paths, evaluation=False, profile=profile)


def evaluate(config: Mapping[str, Any], workdir: str, paths: Sequence[str]) -> int:
    """Only evaluates what is trained, and writes the report."""
    return run(config, workdir, paths, training=False)


def load(config: Mapping[str, Any], *, quiet: bool = False) -> Any:
    """The data, with a word on what is being read and, unless `quiet`, on what cannot be used."""
    from mim_jax import protocol

    folders = [folder for folder in config["data"]["sources"].values() if folder]
    source = config["data"]["root"] or ", ".join(folders)
    source = source or "the embedded procedural images (they say nothing about mpox)"
    print(f"data: {source}", file=sys.stderr)
    with tqdm(desc="reading", unit="image", disable=None) as bar:
        dataset = protocol.load_data(config, progress=lambda done, total: _show(bar, done, total))
    for name, reason in () if quiet else dataset.unusable:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    for sentence in () if quiet else dataset.remarks:
        print(f"data: {sentence}", file=sys.stderr)
    if dataset.doubtful and not quiet:
        count = len(dataset.doubtful)
        print(
            f"gate: {count} images are no usable photographs of skin; --mode=check_data lists them",
            file=sys.stderr,
        )
    if dataset.duplicates and not quiet:
        count = len(dataset.duplicates)
        print(f"groups: {count} sets of near-duplicates were each put into one group", file=sys.stderr)
    if len(dataset.shared_negatives) and not quiet:
        count = len(dataset.shared_negatives)
        print(f"not tested: {count} images that share a group with {dataset.positive}", file=sys.stderr)
    if dataset.group_problems and not quiet:
        count = len(dataset.group_problems)
        print(f"groups: {count} files or rows do not fit; --mode=check_data lists them", file=sys.stderr)
    return dataset


def check_data(config: Mapping[str, Any], workdir: str, paths: Sequence[str]) -> int:
    """Prints what the data hold and what to do about it."""
    from mim_jax import protocol
    from mim_jax.data import inspection

    dataset = load(config, quiet=True)
    folds, trouble = None, None
    try:
        folds = protocol.make_folds(config, dataset)
    except ValueError as error:  # too few images for the folds: the rest is worth knowing all the same
        trouble = error
    print(inspection.format_inspection(inspection.inspect(dataset, positive=dataset.positive, folds=folds)))
    for sentence in dataset.remarks:
        print(sentence)
    if trouble:
        raise trouble
    return UNUSABLE_FILES if dataset.unusable else 0


def _show(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


MODES: dict[str, Callable[..., int]] = {
    "run": run,
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "check_data": check_data,
    "export": export,
    "export_app": export_app,
    "serve": serve,
    "compare": compare,
}
