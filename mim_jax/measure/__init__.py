"""The five similarities of an image and its inpainting (Eq. 11-15), on JAX and NumPy alone."""

# In the order of the paper's tables: name in code and files -> name in the paper.
METRIC_NAMES = {"ssim_hbd": "SSIM+HBD", "ssim": "SSIM", "hbd": "HBD", "mae": "MAE", "mse": "MSE"}
METRICS = tuple(METRIC_NAMES)
