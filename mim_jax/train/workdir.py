"""The folder of a run: claimed by one configuration, resumed by the same one, refused to any other."""

import contextlib
import csv
import hashlib
import json
import os
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mim_jax.data.dataset import NOTICE

# Fields that may change in a workdir: sections that do not affect training, so that a finished run can be
# evaluated again with others; the location of the images, identified by their digest; and the devices.
FREE = (
    *("evaluation", "decision", "detector", "features", "data.source_column"),
    *("data.root", "data.sources", "data.data_dir"),
    "data.gate",  # the images it excludes change the digest
    *("training.devices", "training.shards"),
)

SEAL = "sha256"
CLOCK = "wall_time"  # not part of the seal, so that it is equal for otherwise identical runs
SCORES = ("scores.csv", "clinical.csv")  # in the folder of each fold
LOCK = ".lock"  # locked by the kernel; contains the name of the holder
CONFIG = "config.json"
CALIBRATION, CALIBRATION_FORMAT = "calibration.json", 2  # written by an evaluation for detectors


def claim(path: str | os.PathLike[str], config: Mapping[str, Any], data: Mapping[str, Any]) -> Path:
    """Claim `path` as workdir for `config` and the images described by `data`; return its absolute path.

    Both are stored in it, as `config.json` and `data.json`. Errors as in `check`; also if the images differ
    from those the workdir began with: new folds would test on images that the old ones trained on.
    """
    workdir = check(path, config)
    saved = workdir / "data.json"
    if saved.exists() and (before := read_json(saved)) != data:
        raise ValueError(
            f"the images differ from those that the workdir {workdir} began with ({before['images']} of "
            f"digest {before['digest'][:12]} there, {data['images']} of {data['digest'][:12]} here): restore "
            "those, or give this run its own --workdir"
        )
    write_json(saved, data, sealed=True)
    write_json(workdir / CONFIG, config, sealed=True)
    return workdir


def share(path: str | os.PathLike[str], data: Mapping[str, Any]) -> Path:
    """Find the workdir that this run's first process has claimed, from another process.

    ValueError if it is not visible to this process, or the images here differ from those there.
    """
    workdir = Path(path).expanduser().resolve()
    if not (workdir / "data.json").exists():
        raise ValueError(
            f"the workdir {workdir} of the first process is not visible to this one: name a folder "
            "that all hosts share"
        )
    there = read_json(workdir / "data.json")
    if there != data:
        raise ValueError(
            f"the images of this process ({data['images']} of digest {data['digest'][:12]}) differ from the "
            f"first's ({there['images']} of {there['digest'][:12]}): give every host the same images"
        )
    return workdir


def check(path: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Check that `path` is writable and not the workdir of another configuration; return it as absolute.

    The ValueError lists the fields that differ.
    """
    workdir = check_empty(path, CONFIG)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # a run that started at the same time may have removed it
    except OSError as error:
        raise ValueError(
            f"the workdir {workdir} cannot be written ({error.strerror}): choose another with --workdir"
        ) from error
    saved = workdir / CONFIG
    if saved.exists() and (different := differences(read_json(saved), config, FREE)):
        raise ValueError(
            f"the workdir {workdir} belongs to another configuration ({'; '.join(different)}): "
            "give this run its own --workdir, or the same configuration"
        )
    return workdir


def check_empty(path: str | os.PathLike[str], mark: str) -> Path:
    """Return `path` as absolute; ValueError if it holds files, but none that matches the pattern `mark`.

    Hidden files do not count, nor do files left by a run that was stopped as it began.
    """
    workdir = Path(path).expanduser().resolve()
    if workdir.is_dir() and not any(workdir.glob(mark)):
        uncounted = (".", "data.json", "lost+found")
        names = (each.name for each in workdir.iterdir())
        if first := min((name for name in names if not name.startswith(uncounted)), default=""):
            raise ValueError(
                f"{workdir} holds {first!r:.60} but no {mark}: choose a new or an empty folder with "
                "--workdir, or one that this mode has written"
            )
    return workdir


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str], *, of_both: bool = False
) -> list[str]:
    """Describe each field in which two configurations differ, except those below `free`.

    With `of_both`, fields that only one of them has are ignored.
    """
    # Through JSON, like a saved configuration: JSON turns tuples into lists.
    there, here = (flatten(json.loads(json.dumps(each))) for each in (before, now))
    names = there.keys() & here.keys() if of_both else there.keys() | here.keys()
    return [
        f"{name}: {there.get(name, 'absent')!r} there, {here.get(name, 'absent')!r} here"
        for name in sorted(names)
        if there.get(name) != here.get(name) and not any(f"{name}.".startswith(f"{each}.") for each in free)
    ]


@contextlib.contextmanager
def hold(workdir: Path, flag: str = "--workdir") -> Iterator[None]:
    """Lock an existing workdir, named by `flag`, against other runs while the `with` block lasts.

    The kernel holds the lock and releases it however this process dies, so no lock is ever stale. If the file
    system does not support locks, a warning says so. ValueError names the process of a run that holds it.
    """
    import fcntl  # POSIX only: detectors, which lock nothing, also load on other platforms

    with (workdir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"{'the workdir ' if flag == '--workdir' else ''}{workdir} is in use by "
                f"{file.read().strip() or 'another process'}: wait for that run or stop it, or give this one "
                f"its own {flag}"
            ) from error
        except OSError as error:
            why = f"{workdir} is on a file system without locks ({error.strerror})"
            warnings.warn(f"{why}: a second run would not be kept out", stacklevel=3)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield  # The file stays: if removed, a process that has it open would hold an invisible lock.


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a tree: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def read_json(path: Path) -> Any:
    """Read a JSON file, checking and removing its seal; ValueError if it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.pop(SEAL, seal := _hash(content)) != seal:
            raise ValueError(f"its {SEAL} does not match its content")
        return content
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist: is {path.parent} the workdir of a run?") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): restore it, or use another workdir") from error


def find_seeds(root: Path) -> tuple[int, ...]:
    """Seeds whose runs are in a folder, as `seed_K`, ascending."""
    found = [path.parent.name.removeprefix("seed_") for path in root.glob(f"seed_*/{CONFIG}")]
    return tuple(sorted(int(name) for name in found if name.isdecimal()))


def read_config(root: Path) -> dict[str, Any]:
    """Read the configuration of a run, tuples in place of JSON's lists; ValueError if there is no run."""
    if not (root / CONFIG).exists() and (seeds := find_seeds(root)):
        listed = ", ".join(str(root / f"seed_{seed}") for seed in seeds)
        raise ValueError(f"{root} holds {len(seeds)} runs, one per seed: name one of them, {listed}")
    found = read_json(root / CONFIG)
    if not isinstance(found, dict) or not isinstance(found.get("data"), dict):
        raise ValueError(f"{root} is not the workdir of a run: its {CONFIG} holds no run's configuration")

    def with_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: with_tuples(each) for name, each in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return with_tuples(found)


def read_notice(root: Path) -> str:
    """Notice to show with a run's scores, from its configuration: "" unless its images are procedural."""
    data = read_config(root)["data"]
    return "" if data.get("root") or any(data.get("sources", {}).values()) else NOTICE


def read_calibration(root: Path) -> dict[str, Any]:
    """Read calibration.json; ValueError if another version wrote it."""
    found = read_json(root / CALIBRATION)
    if not isinstance(found, Mapping) or found.get("format") != CALIBRATION_FORMAT:
        raise ValueError(
            f"{root / CALIBRATION} was written by another version of mim_jax: evaluate the workdir again "
            "with --mode=evaluate"
        )
    return dict(found)


def write_json(path: Path, content: Any, *, sealed: bool = False) -> None:
    """Write a JSON file atomically; if `sealed`, with its hash, from which `read_json` detects changes."""
    if sealed:
        content = {**content, SEAL: _hash(content)}
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, header first, to a CSV file atomically."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows(rows)
    os.replace(temporary, path)


def hash_scores(workdir: Path) -> dict[str, str]:
    """SHA-256 of every fold's score tables, by their path in the workdir."""
    tables = sorted(path for name in SCORES for path in workdir.glob(f"fold_*/{name}"))
    return {
        path.relative_to(workdir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in tables
    }


def check_scores(workdir: Path, results: Mapping[str, Any]) -> None:
    """Raise ValueError if a score table is not the one that `results` were computed from."""
    found = hash_scores(workdir)
    for name, value in results.get("scores_sha256", {}).items():  # older results have none
        if name in found and found[name] != value:
            raise ValueError(
                f"{workdir / name} is not what the run wrote (its SHA-256 is {found[name][:12]}, but "
                f"results.json has {value[:12]}): evaluate that run again with --mode=evaluate"
            )


def _hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a JSON file, independent of its formatting."""
    # Hash what is read back: numeric keys have become strings, which sort differently.
    read = json.loads(json.dumps(content))
    said = {name: value for name, value in read.items() if name not in (SEAL, CLOCK)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
