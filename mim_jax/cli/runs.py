"""The modes of launch.py that make runs, compare them, and export and serve their detectors.

Each returns the exit status and imports what it needs itself, so that mistakes are reported at once.
"""

import contextlib
import functools
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from mim_jax.cli.console import UNUSABLE_FILES, say
from mim_jax.cli.runtime import Profile
from mim_jax.data.dataset import Dataset
from mim_jax.train import config, devices, images
from mim_jax.train.config import Experiment
from mim_jax.train.settings import Settings
from mim_jax.train.stored_programs import StoredPrograms
from mim_jax.train.workdir import check_empty

Claimed = tuple[Experiment, Path]  # a run whose images are loaded, and its claimed folder


def run(
    settings: Settings,
    workdir: str,
    *,
    training: bool = True,
    evaluation: bool = True,
    profile: bool = False,
    programs: StoredPrograms | None = None,
) -> int:
    """Train the unfinished folds, then evaluate and write the report; or do only one of the two."""
    of_training: dict[str, Any] = {"profile": profile, "programs": programs}
    if settings.seeds:
        return _run_seeds(settings, workdir, training=training, evaluation=evaluation, **of_training)
    began = time.perf_counter()
    method = _method(settings)
    with _claim([settings], [workdir], method, training=training, evaluation=evaluation) as (claimed,):
        experiment, path = claimed
        if evaluation and devices.is_first():
            from mim_jax.evaluate.methods import advice

            if sentence := advice(experiment):  # before hours are spent
                say(f"mim_jax: {sentence}", sys.stderr)
        if training:
            _train([claimed], method, **of_training)
        with devices.barrier():
            if not evaluation and devices.is_first():
                say(f"trained: {path}; evaluate it with --mode=evaluate")
            if evaluation and devices.is_first():
                from mim_jax.train.metric_writer import Recorder

                with Recorder(path) as recorder:
                    page = _evaluate_and_report(experiment, path, recorder, began)
                say(f"report: {page}")
    return 0


def _method(settings: Settings) -> config.Method:
    """The module that trains runs of this kind."""
    if settings.mim:
        from mim_jax.train import mim

        return mim
    from mim_jax.classifiers import train

    return train


def _evaluate_and_report(experiment: Experiment, path: Path, recorder: Any, began: float) -> Path:
    """Evaluate a trained run, and write its page."""
    if experiment.settings.mim:
        from mim_jax.evaluate import mim
        from mim_jax.report.report import write_report

        return write_report(path, mim.evaluate(experiment, path, recorder, began=began))
    from mim_jax.evaluate import classifiers
    from mim_jax.report.comparison import write_comparison

    found, runs = classifiers.evaluate(experiment, path, recorder, began=began)
    return write_comparison(path, found, runs, name="report.html")


@contextlib.contextmanager
def _claim(
    runs: Sequence[Settings],
    workdirs: Sequence[str],
    method: config.Method,
    *,
    training: bool,
    evaluation: bool,
) -> Iterator[list[Claimed]]:
    """Claim the folders, which the first process locks against other runs, and load the images."""
    from mim_jax.train import workdir as folders
    from mim_jax.train.metric_writer import merge_events

    def claim(settings: Settings, workdir: str, held: contextlib.ExitStack) -> Claimed:
        first = devices.is_first()
        if first:
            if not training and not (Path(workdir).expanduser() / "config.json").exists():
                raise ValueError(f"{workdir} is not the workdir of a run: train it first with --mode=train")
            held.enter_context(folders.hold(folders.check(workdir, settings.given)))
        with _reading(settings) as progress:
            experiment = config.build(settings, method, clinical=evaluation and first, progress=progress)
        _say_problems(experiment.dataset)
        if evaluation:
            images.check_negatives(experiment.dataset)
        data = {"digest": experiment.dataset.digest(), "images": len(experiment.dataset)}
        # Load the data first: a run that its data do not support should not claim a folder.
        path = folders.claim(workdir, settings.given, data) if first else folders.share(workdir, data)
        if first:
            merge_events(path)  # left by processes that were stopped
        return experiment, path

    if evaluation and (frozen := runs[0].features):  # check now: its weights are needed only after hours
        from mim_jax.evaluate.features import checked_backbone

        with devices.barrier():
            checked_backbone(frozen)
    with contextlib.ExitStack() as held:
        claimed = []
        for settings, workdir in zip(runs, workdirs, strict=True):
            with devices.barrier():
                method.check(settings)
                if training:
                    devices.find_groups(settings.training)
            one = functools.partial(claim, settings, workdir, held)
            claimed.append(devices.one_process_at_a_time(one))
        yield claimed


def _train(
    runs: Sequence[Claimed], method: config.Method, *, profile: bool, programs: StoredPrograms | None
) -> None:
    """Train the unfinished folds of several runs at once."""
    from mim_jax.train import trainer
    from mim_jax.train.metric_writer import Recorder, merge_events

    with devices.barrier(), contextlib.ExitStack() as stack:
        trainings = []
        first, folder = runs[0]
        record = Profile(folder / "profile")
        recorders = [stack.enter_context(Recorder(path, process=jax.process_index())) for _, path in runs]
        for (experiment, path), recorder in zip(runs, recorders, strict=True):
            name = f"seed {experiment.settings.seed}, " if len(runs) > 1 else ""
            trainings += [
                replace(training, title=name + training.title, recorder=recorder)
                for training in method.trainings(experiment, path)
            ]
        if devices.is_first():
            _say_resumed(trainings, first.settings.training.epochs)
        wrap: dict[str, Callable[..., Any]] = {"wrap": record.wrap} if profile else {}
        trainer.train(trainings, first.settings.training, recorders[0], programs=programs, **wrap)
        if profile:
            few = "none, because no program was dispatched twice: train more epochs or use a new workdir"
            say(f"profile: {record.folder if record.done else few}")
    with devices.barrier():
        if devices.is_first():
            for _, path in runs:
                merge_events(path)


def _say_resumed(trainings: Sequence[Any], epochs: int) -> None:
    """Print the epoch from which each training resumes, if it was started before."""
    done = [(each, each.saved_epoch()) for each in trainings]
    if parts := [f"{each.title} from epoch {epoch}" for each, epoch in done if 0 < epoch < epochs]:
        say(f"resumed: {', '.join(parts)}", sys.stderr)
    if finished := sum(epoch == epochs for _, epoch in done):
        say(f"already trained: {finished} of {len(done)} trainings", sys.stderr)


def _run_seeds(
    settings: Settings, workdir: str, *, training: bool, evaluation: bool, **of_training: Any
) -> int:
    """Run each seed in `workdir/seed_K`, and write a page with the spread over seeds.

    If several can train at once, all are trained before the first is evaluated.
    """
    check_empty(workdir, "seed_*")
    runs = [config.with_seed(settings, seed) for seed in dict.fromkeys(settings.seeds)]
    folders = [Path(workdir).expanduser().resolve() / f"seed_{one.seed}" for one in runs]
    if training and jax.device_count() > 1:
        method = _method(settings)
        with _claim(runs, list(map(str, folders)), method, training=True, evaluation=evaluation) as claimed:
            _train(claimed, method, **of_training)
    for one, folder in zip(runs, folders, strict=True):
        say(f"seed {one.seed}: {folder}", sys.stderr)
        run(one, str(folder), training=training, evaluation=evaluation, **of_training)
    if evaluation and devices.is_first():
        from mim_jax.report.report import write_seeds
        from mim_jax.train.workdir import read_json

        results = {folder.name: read_json(folder / "results.json") for folder in folders}
        say(f"report of all seeds: {write_seeds(folders[0].parent, results)}")
    return 0


@contextlib.contextmanager
def _reading(settings: Settings) -> Iterator[Callable[[int, int], None]]:
    """Print the source of the images, and show the progress of reading them."""
    source = settings.data.root or ", ".join(settings.data.sources.values())
    source = source or "the embedded procedural images (they say nothing about mpox)"
    say(f"data: {source}", sys.stderr)
    with tqdm(desc="reading", unit="image", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _say_problems(dataset: Dataset) -> None:
    for name, reason in dataset.unusable:
        say(f"left out: {name}: {reason}", sys.stderr)
    for sentence in dataset.remarks:
        say(f"data: {sentence}", sys.stderr)
    listed = "--mode=check_data lists them"
    for found, words in (
        (dataset.passed_over, f"data: {{}} files and folders were skipped; {listed}"),
        (dataset.doubtful, f"gate: {{}} images are not usable photographs of skin; {listed}"),
        (dataset.duplicates, "groups: {} sets of near-duplicates were each put into one group"),
        (dataset.shared_negatives, f"not tested: {{}} images that share a group with {dataset.positive}"),
        (dataset.group_problems, f"groups: {{}} files or rows have problems; {listed}"),
    ):
        if len(found):
            say(words.format(len(found)), sys.stderr)


def check_data(settings: Settings) -> int:
    """List classes and problems to fix."""
    from mim_jax.data import inspection
    from mim_jax.data.folds import make_folds

    with _reading(settings) as progress:
        dataset = images.load_dataset(settings, progress)
    folds = None
    try:
        groups = dataset.groups[dataset.positives]
        how: dict[str, Any] = {"seed": settings.seed, "grouped": settings.data.grouped}
        folds = make_folds(groups, folds=settings.data.folds, **how)
    finally:  # with too few images for the folds, the rest comes before the error
        say(inspection.format_inspection(inspection.inspect(dataset, folds)))
        for sentence in dataset.remarks:
            say(sentence)
    return UNUSABLE_FILES if dataset.unusable else 0


def compare(settings: Settings, workdir: str, paths: Sequence[str]) -> int:
    """Compare finished runs, of detectors and classifiers, on one page: `comparison.html` in the workdir."""
    from mim_jax.evaluate import comparison, saved_run
    from mim_jax.report.comparison import write_comparison

    if not paths:
        raise ValueError(
            "--mode=compare needs workdirs of finished runs after the flags: launch.py --mode=compare "
            "--workdir=runs/compared runs/mim runs/resnet50"
        )
    root = check_empty(workdir, "comparison.*")
    runs = [saved_run.read_run(path) for path in paths]
    found = comparison.compare(runs, resamples=settings.evaluation.resamples, seed=settings.seed)
    root.mkdir(parents=True, exist_ok=True)
    say(f"comparison: {write_comparison(root, found, runs, name='comparison.html')}")
    return 0


def export(workdir: str) -> int:
    """Write `exported/` into the workdir: the detector as one folder, loadable without its network's code."""
    from mim_jax.deploy.export import export as write
    from mim_jax.detector import load_workdir

    root = Path(workdir).expanduser().resolve()
    path = root / "exported"
    digest = write(load_workdir(workdir), path)
    if (root / "model_card.md").exists():
        # Not hashed, because people may edit it.
        shutil.copyfile(root / "model_card.md", path / "README.md")
    say(f"export: {path}\ndigest: {digest}")
    return 0


def export_app(workdir: str, *, fold: int) -> int:
    """Write `app/` into the workdir: the page that scores on a phone with the network of one fold."""
    try:
        from mim_jax.deploy.app import bundle
    except ModuleNotFoundError as error:
        raise ValueError(f'--mode=export_app needs {error.name}: pip install "mim-jax[app]"') from None
    for line in bundle.export_run(workdir, fold=fold):
        say(line)
    return 0


def serve(settings: Settings, workdir: str, *, app: str | None, host: str, port: int) -> int:
    """Serve the detector of a trained workdir, and the app, until interrupted.

    `app` is the folder served at /; None = `workdir/app` if it exists. Port 0 = any free port.
    """
    try:
        from mim_jax.deploy.server import serving
    except ModuleNotFoundError as error:
        raise ValueError(
            f'--mode=serve needs the package {error.name}: install the [app] extra, pip install ".[app]"'
        ) from None
    from mim_jax.detector import load_workdir

    detector = load_workdir(workdir)
    own = Path(workdir).expanduser().resolve() / "app"
    serving.serve(
        detector,
        alpha=detector.calibration.miss_rate if detector.calibration else 0.1,  # else nothing is decided
        gate=settings.data.gate,
        folder=Path(app).expanduser() if app else own if own.is_dir() else None,
        host=host,
        port=port,
        tell=functools.partial(say, stream=sys.stderr),
    )
    return 0
