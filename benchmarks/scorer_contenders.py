"""The contenders of `benchmarks.scorer`: the same metrics of the same images, computed by each package."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

SIZE, MASK, OFFSET = 224, 112, (56, 56)
TAPS = 11

Score = Callable[[], Any]  # one pass over a batch; `np.asarray` of the result waits for it
Prepare = Callable[[np.ndarray, np.ndarray, str], Score]


def make_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate originals and inpaintings, uint8 `[count, 224, 224, 3]`, equal outside the centred hole."""
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
    """Convert to float32 in [0, 1] on the host, so that the device holds only the result."""
    return images.astype(np.float32) / 255


def mim_jax_metric(name: str, *, mapped: bool = False, of_bytes: bool = False) -> Prepare:
    """`ssim`, `hbd`, or all five by `similarities` or `composite`, over leading axes or under `vmap`."""

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
    """`vmap(grad(ssim))` of mim_jax or dm_pix; the score of an image is the largest absolute gradient."""

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
    """HBD with the histograms used on accelerators (matrix products), on any device."""
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
    """SSIM with the five blurred planes of Wang et al. 2004, by OpenCV's separable filter."""
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
    """SSIM+HBD, combined from existing packages."""
    structure, colour = scikit_image_ssim(x, y, device), opencv_hbd(x, y, device)
    return lambda: 0.5 * np.asarray(structure()) + 0.5 * np.asarray(colour())


# name -> (metric, function that prepares it). The first of each metric is the reference for the others.
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
    "scikit-image + OpenCV": ("all five", scikit_image_and_opencv),  # without MAE and MSE, in its favour
}
