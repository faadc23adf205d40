"""How fast `mim_jax.measure.similarity` is beside what people use now: same images, agreement beside speed.

    python -m benchmarks.scorer                 # CPU
    python -m benchmarks.scorer --device=gpu    # one GPU, beside the same packages on it
    taskset -c 0 python -m benchmarks.scorer --cpu-seconds    # one core of a machine that does other work

Each contender runs in a process of its own, so that its peak memory is its own and its threads disturb
nobody; the rounds go over all contenders in turn, and the fastest round counts. Times are warm and include no
transfer: arrays lie where the package computes. "differs" is the largest distance to mim_jax on the same
pairs: all compute SSIM after Wang et al. 2004 on the windows inside the image; torchmetrics computes those of
a mirrored border too, which are cut off its map. "memory" is what the first pass over the largest batch,
compilation included, holds at its peak beyond the inputs, which stand before: resident memory of the process
as Linux counts it, where pages that the process owns and has free cost nothing; on a GPU that of the device.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write_json

SIZE, MASK, OFFSET = 224, 112, (56, 56)
BATCHES = (1, 32, 256)
TAPS = 11

Score = Callable[[], Any]  # one pass over a batch; the result is waited for by `np.asarray`
Prepare = Callable[[np.ndarray, np.ndarray, str], Score]


def make_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Originals and inpaintings, uint8 `[count, 224, 224, 3]`: equal outside the centred hole."""
    generator = np.random.default_rng(0)
    coarse = generator.random((count, 15, 15, 3))
    smooth = np.repeat(np.repeat(coarse, 15, axis=1), 15, axis=2)[:, :SIZE, :SIZE]
    images = np.rint(255 * np.clip(smooth + generator.normal(0, 0.05, smooth.shape), 0, 1)).astype(np.uint8)
    pasted = images.copy()
    hole = slice(OFFSET[0], OFFSET[0] + MASK)
    noise = generator.normal(0, 20, (count, MASK, MASK, 3))
    pasted[:, hole, hole] = np.clip(images[:, hole, hole][:, ::-1] + noise, 0, 255).astype(np.uint8)
    return images, pasted


def as_floats(images: np.ndarray) -> np.ndarray:
    """float32 in [0, 1], made on the host, so that a device holds no more than the result."""
    return images.astype(np.float32) / 255


def mim_jax_metric(name: str, *, mapped: bool = False, of_bytes: bool = False) -> Prepare:
    """`ssim`, `hbd`, or all five by `similarities` or `composite`; of leading axes or by `vmap`."""

    def prepare(x: np.ndarray, y: np.ndarray, device: str) -> Score:
        import jax
        import jax.numpy as jnp

        from mim_jax.measure import similarity, ssim

        images, pasted = (jnp.asarray(a if of_bytes else as_floats(a)) for a in (x, y))
        if name == "composite":
            pasted = pasted[:, OFFSET[0] : OFFSET[0] + MASK, OFFSET[1] : OFFSET[1] + MASK]
        metrics: dict[str, Callable[[Any, Any], Any]] = {
            "ssim": ssim.ssim,
            "hbd": similarity.hbd,
            "similarities": similarity.similarities,
            "composite": lambda image, patch: similarity.composite_similarities(image, patch, OFFSET),
        }
        metric = jax.jit(jax.vmap(metrics[name]) if mapped else metrics[name])

        def score() -> Any:
            scores = jax.block_until_ready(metric(images, pasted))
            return scores.ssim_hbd if name in ("similarities", "composite") else scores

        return score

    return prepare


def mapped_gradient(package: str) -> Prepare:
    """`vmap(grad(ssim))` of mim_jax or dm_pix; each image's score is the largest slope of a pixel."""

    def prepare(x: np.ndarray, y: np.ndarray, device: str) -> Score:
        import importlib

        import jax
        import jax.numpy as jnp

        ssim = importlib.import_module(package).ssim
        images, pasted = (jnp.asarray(as_floats(a)) for a in (x, y))
        slopes = jax.jit(jax.vmap(jax.grad(ssim)))
        largest = jax.jit(lambda slopes: jnp.max(jnp.abs(slopes), axis=(1, 2, 3)))
        return lambda: jax.block_until_ready(largest(slopes(images, pasted)))

    return prepare


def product_form_hbd(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    """HBD with histograms as accelerators count them, on whatever device this is."""
    import jax
    import jax.numpy as jnp

    from mim_jax.measure import histogram

    def counts(image: jax.Array) -> jax.Array:
        ones = jnp.ones(image.shape, jnp.bfloat16)
        return histogram._multiplied_counts(image.astype(jnp.int32), ones, bins=256)

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return histogram.bhattacharyya(counts(pair[0]), counts(pair[1]), False)

    score = jax.jit(lambda x, y: jax.lax.map(one, (x, y)))
    images, pasted = jnp.asarray(x), jnp.asarray(y)
    return lambda: jax.block_until_ready(score(images, pasted))


def dm_pix_ssim(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    import dm_pix
    import jax
    import jax.numpy as jnp

    images, pasted = (jnp.asarray(as_floats(a)) for a in (x, y))
    ssim = jax.jit(dm_pix.ssim)
    return lambda: jax.block_until_ready(ssim(images, pasted))


def torchmetrics_ssim(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    images, pasted, wait = _torch_pair(x, y, device)

    def score() -> np.ndarray:
        _, windows = ssim(images, pasted, data_range=1.0, reduction="none", return_full_image=True)
        edge = TAPS // 2
        return wait(windows[..., edge:-edge, edge:-edge].mean((1, 2, 3)))

    return score


def pytorch_msssim_ssim(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    from pytorch_msssim import ssim

    images, pasted, wait = _torch_pair(x, y, device)
    return lambda: wait(ssim(images, pasted, data_range=1.0, size_average=False))


def _torch_pair(x: np.ndarray, y: np.ndarray, device: str) -> tuple[Any, Any, Callable[[Any], np.ndarray]]:
    import torch

    where = "cuda" if device == "gpu" else "cpu"
    planes = (np.ascontiguousarray(as_floats(a).transpose(0, 3, 1, 2)) for a in (x, y))
    images, pasted = (torch.from_numpy(a).to(where) for a in planes)

    def wait(result: Any) -> np.ndarray:
        return result.detach().cpu().numpy()

    return images, pasted, wait


def scikit_image_ssim(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    from skimage.metrics import structural_similarity

    images, pasted = as_floats(x), as_floats(y)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return lambda: [
        structural_similarity(a, b, channel_axis=-1, **settings) for a, b in zip(images, pasted, strict=True)
    ]


def opencv_ssim(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    """The five blurred planes of Wang et al. 2004 by OpenCV's separable filter."""
    import cv2

    images, pasted = as_floats(x), as_floats(y)
    edge = TAPS // 2

    def blur(plane: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(plane, (TAPS, TAPS), 1.5)[edge:-edge, edge:-edge]

    def one(a: np.ndarray, b: np.ndarray) -> float:
        mean_a, mean_b = blur(a), blur(b)
        squares, product = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
        variances, covariance = blur(a * a) + blur(b * b) - squares, blur(a * b) - product
        top = (2 * product + 0.01**2) * (2 * covariance + 0.03**2)
        return float(np.mean(top / ((squares + 0.01**2) * (variances + 0.03**2))))

    return lambda: [one(a, b) for a, b in zip(images, pasted, strict=True)]


def opencv_hbd(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    import cv2

    def counts(image: np.ndarray) -> np.ndarray:
        return np.concatenate([cv2.calcHist([image], [c], None, [256], [0, 256]) for c in range(3)])

    def one(a: np.ndarray, b: np.ndarray) -> float:
        distance = cv2.compareHist(counts(a), counts(b), cv2.HISTCMP_BHATTACHARYYA)
        return 1 + math.log(1 - distance * distance)

    return lambda: [one(a, b) for a, b in zip(x, y, strict=True)]


def scikit_image_and_opencv(x: np.ndarray, y: np.ndarray, device: str) -> Score:
    """SSIM+HBD, as one would put it together today."""
    structure, colour = scikit_image_ssim(x, y, device), opencv_hbd(x, y, device)
    return lambda: 0.5 * np.asarray(structure()) + 0.5 * np.asarray(colour())


# name -> (metric, how to prepare it). The first of each metric is what the others are compared with.
CONTENDERS: dict[str, tuple[str, Prepare]] = {
    "mim_jax ssim": ("SSIM", mim_jax_metric("ssim")),
    "mim_jax vmap(ssim)": ("SSIM", mim_jax_metric("ssim", mapped=True)),
    "mim_jax ssim, uint8": ("SSIM", mim_jax_metric("ssim", of_bytes=True)),
    "dm_pix": ("SSIM", dm_pix_ssim),
    "scikit-image": ("SSIM", scikit_image_ssim),
    "torchmetrics": ("SSIM", torchmetrics_ssim),
    "pytorch-msssim": ("SSIM", pytorch_msssim_ssim),
    "OpenCV GaussianBlur": ("SSIM", opencv_ssim),
    "mim_jax vmap(grad)": ("gradient", mapped_gradient("mim_jax.measure.ssim")),
    "dm_pix vmap(grad)": ("gradient", mapped_gradient("dm_pix")),
    "mim_jax hbd": ("HBD", mim_jax_metric("hbd")),
    "mim_jax vmap(hbd)": ("HBD", mim_jax_metric("hbd", mapped=True)),
    "mim_jax hbd, uint8": ("HBD", mim_jax_metric("hbd", of_bytes=True)),
    "mim_jax, as on GPUs": ("HBD", product_form_hbd),
    "OpenCV calcHist": ("HBD", opencv_hbd),
    "mim_jax composite": ("all five", mim_jax_metric("composite")),
    "mim_jax similarities": ("all five", mim_jax_metric("similarities")),
    "mim_jax vmap(sim.)": ("all five", mim_jax_metric("similarities", mapped=True)),
    "mim_jax sim., uint8": ("all five", mim_jax_metric("similarities", of_bytes=True)),
    "mim_jax vmap(comp.)": ("all five", mim_jax_metric("composite", mapped=True)),
    "mim_jax comp., uint8": ("all five", mim_jax_metric("composite", of_bytes=True)),
    "scikit-image + OpenCV": ("all five", scikit_image_and_opencv),  # MAE and MSE left out, in its favour
}


def measure(name: str, device: str, seconds: float, clock: Callable[[], float]) -> dict[str, Any]:
    """One contender in this process: images/s at each batch, scores of 32 pairs, memory in MB."""
    if device == "cpu":
        import jax

        jax.config.update("jax_platforms", "cpu")
    images, pasted = make_images(max(BATCHES))
    prepare, speed = CONTENDERS[name][1], {}
    scores = np.asarray(prepare(images[:32], pasted[:32], device)(), np.float64)
    score = prepare(images, pasted, device)
    before = _held(device)
    score()
    memory = _peak(device) - before
    for batch in BATCHES:
        score = prepare(images[:batch], pasted[:batch], device)
        score()
        fastest, spent = math.inf, 0.0
        while spent < seconds:
            began = clock()
            score()
            took = clock() - began
            fastest, spent = min(fastest, took), spent + took
        speed[batch] = batch / fastest
    return {"speed": speed, "scores": scores.tolist(), "memory": memory / 1e6}


def _held(device: str) -> float:
    """Bytes held now; `_peak` counts from here on."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident
        return _resident("VmRSS")
    held = 0
    if "jax" in sys.modules:
        import jax

        # Its mark cannot be set back, but nothing before the largest batch reached higher.
        held += (jax.devices()[0].memory_stats() or {}).get("bytes_in_use", 0)
    if "torch" in sys.modules:
        import torch

        torch.cuda.reset_peak_memory_stats()
        held += torch.cuda.memory_allocated()
    return float(held)


def _peak(device: str) -> float:
    """Bytes held at most since `_held`."""
    if device == "cpu":
        return _resident("VmHWM")
    peak = 0
    if "jax" in sys.modules:
        import jax

        peak += (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    if "torch" in sys.modules:
        import torch

        peak += torch.cuda.max_memory_allocated()
    return float(peak)


def _resident(field: str) -> float:
    """Bytes, from Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def copy_bandwidth() -> float:
    """Bytes/s of reading and writing one GiB on the GPU."""
    import jax
    import jax.numpy as jnp

    block = jnp.ones(2**28, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        jax.block_until_ready(copy(block))
        times.append(time.perf_counter() - began)
    return 2 * block.nbytes / min(times)


def run_child(arguments: Sequence[str], *, limit: float | None = None) -> Any:
    """This program in a process of its own; what it printed, or None where a package is missing.

    Raises:
      RuntimeError: it failed, or took longer than `limit` seconds.
    """
    command = [sys.executable, "-m", "benchmarks.scorer", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took longer than {limit:g} seconds") from error
    if done.returncode:
        if "ModuleNotFoundError" not in done.stderr:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="at each batch size in each round")
    parser.add_argument("--names", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--limit", type=float, help="seconds that a contender may take in a round")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write everything there")
    parser.add_argument("--cpu-seconds", action="store_true", help="images per second of CPU time")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child == "backend":
        import jax  # here it takes no GPU memory from the contenders

        print(json.dumps(jax.default_backend()))
        return
    if options.child == "copy":
        print(json.dumps(copy_bandwidth()))
        return
    if options.child:
        clock = time.process_time if options.cpu_seconds else time.perf_counter
        print(json.dumps(measure(options.child, options.device, options.seconds, clock)))
        return

    if options.device == "gpu" and run_child(["--device=gpu", "--child=backend"]) != "gpu":
        sys.exit("benchmarks.scorer: not measured: JAX finds no GPU")
    environment: dict[str, Any] = {"device": options.device, "images": f"{SIZE}x{SIZE}x3, float32"}
    found: dict[str, dict[str, Any]] = {}
    if options.device == "gpu":
        environment["copy_gb_per_s"] = run_child(["--device=gpu", "--child=copy"]) / 1e9
    given = [f"--device={options.device}", f"--seconds={options.seconds}"]
    given += ["--cpu-seconds"] if options.cpu_seconds else []
    for _ in range(options.rounds):
        for name in options.names:
            try:
                row = run_child([*given, f"--child={name}"], limit=options.limit)
            except RuntimeError as error:
                row = {"error": str(error).strip().splitlines()[-1]}
            row = row or {"error": "not installed"}
            known = found.setdefault(name, row)
            if "speed" in row and "speed" in known:
                known["speed"] = {k: max(v, known["speed"][k]) for k, v in row["speed"].items()}
            write_json(options.json, environment, make_rows(found, environment))
    print(format_table(environment, make_rows(found, environment)))


def make_rows(found: Mapping[str, Mapping[str, Any]], environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a contender: its speeds, and its ratio and distance to the first of its metric at batch 32."""
    rows: list[dict[str, Any]] = []
    for name, own in found.items():
        metric, prepare = CONTENDERS[name]
        row: dict[str, Any] = {"metric": metric, "system": name}
        if "error" in own:
            rows.append(row | {"error": own["error"]})
            continue
        row |= {"images_per_s": own["speed"], "memory_mb": own["memory"]}
        first = found.get(next(other for other, (same, _) in CONTENDERS.items() if same == metric), {})
        if "speed" in first:
            row["ours_over_this"] = first["speed"]["32"] / own["speed"]["32"]
            row["differs"] = float(np.max(np.abs(np.subtract(first["scores"], own["scores"]))))
        ours = prepare.__qualname__.startswith("mim_jax") and "uint8" not in name
        if ours and (copy := environment.get("copy_gb_per_s")):
            # What it reads at least: an image, and a second one or only the patch.
            read = SIZE * SIZE + (MASK * MASK if name == "mim_jax composite" else SIZE * SIZE)
            row["gb_per_s"] = own["speed"][str(BATCHES[-1])] * read * 3 * 4 / 1e9
            row["of_copy"] = row["gb_per_s"] / copy
        rows.append(row)
    return rows


def format_table(environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a contender: speed, ratio to the first of its metric at batch 32, agreement, memory."""
    lines = [
        f"images/s, {environment['images']}",
        f"{'metric':9} {'package':22}"
        + "".join(f"{f'batch {batch}':>11}" for batch in BATCHES)
        + f"{'ours/this':>11}{'differs':>10}{'memory':>10}",
    ]
    for row in rows:
        head = f"{row['metric']:9} {row['system']:22}"
        if "error" in row:
            lines.append(f"{head} {row['error']}")
            continue
        beside = f"{row['ours_over_this']:11.2f}{row['differs']:10.1e}" if "differs" in row else f"{'':21}"
        lines.append(
            head
            + "".join(f"{row['images_per_s'][str(batch)]:11.0f}" for batch in BATCHES)
            + f"{beside}{row['memory_mb']:7.0f} MB"
        )
    copies = [row for row in rows if "of_copy" in row]
    if copies:
        lines.append(f"copy: {environment['copy_gb_per_s']:.0f} GB/s")
        lines += [f"{r['system']}: {r['gb_per_s']:.0f} GB/s, {r['of_copy']:.2f} of the copy" for r in copies]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
