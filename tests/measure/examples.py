"""Images to measure."""

import cv2
import numpy as np

SIZE = 40


def image_like(seed: int, *, size: int = SIZE, count: int | None = None) -> np.ndarray:
    """Smooth colour with noise: float32 in [0, 1], `[size, size, 3]`, or `count` of them."""
    generator = np.random.default_rng(seed)
    images = generator.random((count or 1, 5, 5, 3))
    smooth = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in images])
    noisy = np.clip(smooth + generator.normal(0, 0.05, smooth.shape), 0, 1).astype(np.float32)
    return noisy if count else noisy[0]
