"""Compare the memory a compiled program needs with what is free, before the machine runs out.

XLA knows the size of a program's buffers once it is compiled; nothing has to run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

CLOSE = 0.8  # fraction of free memory above which to warn
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory(device: jax.Device | None = None) -> float | None:
    """Return the memory that a device (None = CPU) still has, in bytes; None if unknown.

    On a GPU it is what JAX may allocate minus what it has allocated.
    """
    if device is not None and device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            return None
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    fields = _numbers(_PROC / "meminfo")
    if "MemAvailable:" not in fields:
        return None
    # Kilobytes. Swap counts: it makes a program slow but keeps it alive.
    machine = 1024.0 * (fields["MemAvailable:"] + fields.get("SwapFree:", 0))
    return min([machine, *_left_in_cgroups()])


def _left_in_cgroups() -> list[float]:
    """Return the memory left in each control group (v1 or v2) around this process, in bytes."""
    left = []
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, used = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path may be the host's, so that only the root exists.
        for each in (folder, *folder.parents):
            if not each.is_relative_to(root):
                break
            most, taken = _number(each / limit), _number(each / used)
            if most is not None and taken is not None:
                stat = _numbers(each / "memory.stat")
                # The kernel drops cached files before it kills a process.
                files = stat.get("inactive_file", 0) + stat.get("active_file", 0)
                left.append(float(most - taken + files))
    return left


def _number(path: Path) -> int | None:
    """Return the number in a file; None if there is no such file or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _numbers(path: Path) -> dict[str, int]:
    """Return first word -> second word of a file's lines, for lines whose second word is a number."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def estimate(compiled: Any) -> float | None:
    """Return the memory a running program needs in addition to its arguments, in bytes per device.

    Its temporary buffer and the results that do not reuse an argument's buffer. None if XLA does not know.
    """
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return float(sizes.temp_size_in_bytes + max(results, 0))


def check_program(
    program: Any,
    state: Any,
    epochs: jax.Array,
    *,
    what: str,
    smaller: Sequence[str],
    say: Callable[[str], None],
) -> float:
    """Compile a training's `mim_jax.train.epochs.Program`, and check that this machine has memory for it.

    The call that follows, with the same arguments, reuses the compiled program. Returns the memory needed in
    addition to the arguments, from `estimate`; 0 if unknown.

    ValueError if more is needed than is free; `say` gets a warning if it is more than `CLOSE` of that. Both
    name the training, `what`, with both figures, and the options in `smaller`, which reduce the need.
    """
    needed = estimate(program.lower(state, epochs).compile())
    if needed is None:
        return 0.0
    device = next(iter(epochs.devices()))
    free = free_memory(device)
    # A checkpoint, or a state kept back for one, is a copy.
    copies = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) if device.platform == "cpu" else 0
    whole = needed + copies
    if free is None or whole <= CLOSE * free:
        return needed
    elsewhere = "a GPU" if device.platform == "cpu" else "a larger GPU or several (--config.training.shards)"
    fields = [f"--config.{name}" for name in smaller]
    ways = f"lower {', '.join(fields[:-1])} or {fields[-1]} in a new --workdir, or use {elsewhere}"
    figures = f"{what} needs {whole / 2**30:.1f} GiB of memory, and {max(free, 0) / 2**30:.1f} GiB are free"
    if whole > free:
        raise ValueError(f"{figures}: {ways}")
    say(f"memory: {figures}, which is close; if the run is killed, {ways}")
    return needed
