"""Strided and transposed convolutions in the form each backend runs fast, and the product they are made of.

On GPUs cuDNN runs XLA's convolutions fast. On CPUs (jaxlib 0.10) the gradient of a transposed
convolution takes tens of times as long as the same sums written as matrix products, and any convolution
inside a loop or a nested call falls back to a slow path. So each operation has a `lax` form and a matrix
form, made of slices, shifts and one large product, which is fast in any context;
`jax.lax.platform_dependent` picks one at lowering.

Layout: images `[B, H, W, C]`, kernels `[k, k, C_in, C_out]` as in Flax. Padding is symmetric and given in
pixels, as in PyTorch (`SAME` differs from `padding=1` for a 3x3 kernel with stride 2).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mim_jax.inpaint.recomputing import with_large_matrix

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Cross-correlation: `[B, H, W, I]` with `[k, k, I, O]` gives `[B, (H + 2p - k) // s + 1, ..., O]`."""
    forms = {"cpu": _conv_matrix, "default": _conv_lax}
    return lax.platform_dependent(x, kernel, **_bind(forms, stride, padding))


def conv_transpose(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Transposed convolution: `[B, H, W, I]` with `[k, k, I, O]` gives `[B, (H - 1) s - 2p + k, ..., O]`.

    Input pixel (i, j) adds `x[i, j] @ kernel[a, b]` to output pixel (s i + a - p, s j + b - p):
    `torch.nn.ConvTranspose2d` with its weight `[I, O, k, k]` transposed to `[k, k, I, O]`, without a flip.
    """
    forms = {"cpu": _conv_transpose_matrix, "default": _conv_transpose_lax}
    return lax.platform_dependent(x, kernel, **_bind(forms, stride, padding))


def depthwise(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Depthwise cross-correlation: `[B, H, W, C]` with `[k, k, 1, C]`; output sizes as for `conv`."""
    forms: dict[str, Callable[..., jax.Array]] = {"cpu": _depthwise_sums, "default": _conv_lax}
    return lax.platform_dependent(x, kernel, **_bind(forms, stride, padding))


def pointwise_then_transpose(
    x: jax.Array,
    first: tuple[jax.Array, jax.Array],
    second: tuple[jax.Array, jax.Array],
    *,
    stride: int,
    padding: int,
) -> jax.Array:
    """Apply a 1x1 convolution and a transposed one directly after it as a single transposed convolution.

    With kernel V, bias c of the first and W, b of the second, W * (V x + c) + b = (W V) * x + (W * c + b).
    W * c varies over positions: at the border fewer taps see c. W V costs the same for any number of images.
    `x` is `[B, H, W, I]`, `first` holds `[1, 1, I, M]` and `[M]`, `second` `[k, k, M, O]` and `[O]`; `stride`
    and `padding` are those of the transposed convolution.
    """
    (inner, constant), (kernel, bias) = first, second
    einsum = functools.partial(jnp.einsum, precision=precision(x.dtype))
    composed = einsum("im,abmo->abio", inner[0, 0], kernel)
    everywhere = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    border = einsum("m,abmo->abo", constant, kernel)[:, :, None]
    y = conv_transpose(x, composed, stride=stride, padding=padding)
    return y + conv_transpose(everywhere, border, stride=stride, padding=padding) + as_row(bias)


def saves_to_compose(positions: int, channels: int, inner: int, features: int, taps: int) -> bool:
    """Whether `pointwise_then_transpose` needs fewer multiplications than its two convolutions one by one."""
    apart = positions * inner * (channels + taps * taps * features)
    return taps * taps * features * channels * (inner + positions) < apart


def _bind(
    forms: dict[str, Callable[..., jax.Array]], stride: int, padding: int
) -> dict[str, Callable[..., jax.Array]]:
    return {name: lambda x, w, form=form: form(x, w, stride, padding) for name, form in forms.items()}


def _conv_lax(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution, also a depthwise one, whose kernel is `[k, k, 1, C]`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=_DIMENSIONS,
        feature_group_count=x.shape[-1] // kernel.shape[2],
        precision=precision(x.dtype),
    )


def _conv_transpose_lax(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    pad = kernel.shape[0] - 1 - padding
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((pad, pad), (pad, pad)),
        lhs_dilation=(stride, stride),
        dimension_numbers=_DIMENSIONS,
        precision=precision(x.dtype),
    )


def _conv_matrix(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    taps, features = kernel.shape[0], kernel.shape[-1]
    if stride == 1 and 4 * features < x.shape[-1]:
        return _conv_by_sums(x, kernel, padding)
    form = functools.partial(_conv_of_windows, stride=stride, padding=padding)
    elements = x.size // stride**2 * taps**2
    return with_large_matrix(form, x, kernel, elements=elements, stored=taps > 1)


def _conv_of_windows(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    taps, features = kernel.shape[0], kernel.shape[-1]
    batch, channels = x.shape[0], x.shape[-1]
    columns = _rows_of_windows(x, taps, stride, padding)
    out_height, out_width = columns[0].shape[1:3]
    # XLA copies slices to concatenate them, but not to stack them: that is faster if they are wide.
    join = jnp.stack if taps % stride == 0 and stride * channels >= 64 else jnp.concatenate
    matrix = join(columns, axis=3).reshape(batch * out_height * out_width, taps * taps * channels)
    rows = product(matrix, kernel.reshape(-1, features))
    return rows.reshape(batch, out_height, out_width, features)


def _windows(x: jax.Array, taps: int, stride: int, padding: int) -> list[jax.Array]:
    """Pixels under each tap (a, b): windows[taps * a + b][:, i, j] = padded[:, s i + a, s j + b]."""
    channels = x.shape[-1]
    return [
        row[..., first : first + channels]
        for row in _rows_of_windows(x, taps, stride, padding)
        for first in range(0, row.shape[-1], channels)
    ]


def _rows_of_windows(x: jax.Array, taps: int, stride: int, padding: int) -> list[jax.Array]:
    """Windows as in `_windows`, side by side for the taps (a, b) that share a row and a block of columns.

    Columns s j + b of a block, b from 0 to s - 1, are neighbours in memory. One copy of all of them takes
    less time, and less compiling, than one copy for each.
    """
    batch, *sides, channels = x.shape
    height, width = ((n + 2 * padding - taps) // stride + 1 for n in sides)
    # The far side ends with the last block under a window: padded, or cut if no window reaches it.
    far = [
        stride * (out + (taps - 1) // stride) - n - padding
        for n, out in zip(sides, (height, width), strict=True)
    ]
    zero = jnp.zeros((), x.dtype)
    padded = lax.pad(x, zero, ((0, 0, 0), (padding, far[0], 0), (padding, far[1], 0), (0, 0, 0)))
    rows, columns = (n // stride for n in padded.shape[1:3])
    blocks = padded.reshape(batch, rows, stride, columns, stride * channels)
    phases = [blocks[:, :, q] for q in range(stride)]
    return [
        phases[a % stride][
            :,
            a // stride : a // stride + height,
            b // stride : b // stride + width,
            : min(stride, taps - b) * channels,
        ]
        for a in range(taps)
        for b in range(0, taps, stride)
    ]


def _saving(form: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, tuple[jax.Array, jax.Array]]]:
    """Forward pass of a form whose gradients are computed from its input and kernel."""
    return lambda x, kernel, *sizes: (form(x, kernel, *sizes), (x, kernel))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_by_sums(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """Convolution of stride 1 with few output features: multiply first, then shift and add k*k thin images.

    That takes less memory than k*k wide ones. Gradients are products with the windows of dy.
    """
    batch, height, width, channels = x.shape
    taps, features = kernel.shape[0], kernel.shape[-1]
    weights = kernel.transpose(2, 0, 1, 3).reshape(channels, taps * taps * features)
    products = product(x.reshape(-1, channels), weights)
    products = products.reshape(batch, height, width, taps, taps, features)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0), (0, 0), (0, 0))
    products = jnp.pad(products, pads)
    out_height, out_width = height + 2 * padding - taps + 1, width + 2 * padding - taps + 1
    shifted = [
        products[:, a : a + out_height, b : b + out_width, a, b] for a in range(taps) for b in range(taps)
    ]
    return sum(shifted[1:], start=shifted[0])


def _sums_backward(
    padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    taps, _, channels, features = kernel.shape
    # Pixel j is under tap a of the output at j - a + p: under tap k - 1 - a of the flipped kernel, at j.
    windows = jnp.concatenate(_windows(dy, taps, 1, taps - 1 - padding), axis=-1)
    windows = windows.reshape(-1, taps * taps * features)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3).reshape(-1, channels)
    dx = jnp.dot(windows, flipped, precision=precision(x.dtype)).reshape(x.shape)
    dkernel = _product_of_columns(x.reshape(-1, channels), windows).reshape(channels, taps, taps, features)
    return dx, dkernel.transpose(1, 2, 0, 3)[::-1, ::-1]


_conv_by_sums.defvjp(_saving(_conv_by_sums), _sums_backward)


def _conv_transpose_matrix(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    form = functools.partial(_sum_of_products, stride=stride, padding=padding)
    elements = x.size // x.shape[-1] * (kernel.size // x.shape[-1])
    return with_large_matrix(form, x, kernel, elements=elements, stored=False)


def _sum_of_products(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    batch, height, width, channels = x.shape
    taps, features = kernel.shape[0], kernel.shape[-1]
    blocks = -(-taps // stride)  # kernel taps a = stride * block + phase
    if blocks * stride != taps:
        grow = blocks * stride - taps
        kernel = jnp.pad(kernel, ((0, grow), (0, grow), (0, 0), (0, 0)))
    side = blocks * stride
    weights = kernel.transpose(2, 0, 1, 3).reshape(channels, side * side * features)
    products = product(x.reshape(-1, channels), weights)
    products = products.reshape(batch, height, width, blocks, stride, blocks, stride, features)
    # Output row s i + a with a = s p + q is in block row i + p, phase q: shift by whole blocks, then
    # interleave the phases.
    total = jnp.zeros((batch, height + blocks - 1, width + blocks - 1, stride, stride, features), x.dtype)
    for p in range(blocks):
        for q in range(blocks):
            pads = ((0, 0), (p, blocks - 1 - p), (q, blocks - 1 - q), (0, 0), (0, 0), (0, 0))
            total = total + jnp.pad(products[:, :, :, p, :, q], pads)
    full = total.transpose(0, 1, 3, 2, 4, 5)
    full = full.reshape(batch, (height + blocks - 1) * stride, (width + blocks - 1) * stride, features)
    out_height, out_width = ((n - 1) * stride - 2 * padding + taps for n in (height, width))
    return full[:, padding : padding + out_height, padding : padding + out_width]


def _sum_taps(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    taps = kernel.shape[0]
    weights = kernel.reshape(taps * taps, 1, 1, 1, x.shape[-1])
    terms = [window * w for window, w in zip(_windows(x, taps, stride, padding), weights, strict=True)]
    return sum(terms[1:], start=terms[0])


_depthwise_sums = jax.custom_vjp(_sum_taps, nondiff_argnums=(2, 3))


def _depthwise_backward(
    stride: int, padding: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    (to_x,) = jax.vjp(lambda x: _sum_taps(x, kernel, stride, padding), x)[1](gradient)
    # One reduction of k*k operands reads the images once; k*k reductions would read them k*k times.
    products = [
        (window * gradient).astype(jnp.float32) for window in _windows(x, kernel.shape[0], stride, padding)
    ]
    zeros = [jnp.float32(0)] * len(products)
    to_kernel = lax.reduce(
        products, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (0, 1, 2)
    )
    return to_x, jnp.stack(to_kernel).reshape(kernel.shape).astype(kernel.dtype)


_depthwise_sums.defvjp(_saving(_sum_taps), _depthwise_backward)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product x @ kernel, `[N, I]` with `[I, O]`, with the kernel's gradient computed as x^T dy.

    Automatic differentiation gives (dy^T x)^T. On CPUs that copies dy transposed, and XLA fuses into the copy
    the whole chain of gradients that dy is summed from: a third of the time of a transformer's training step.
    There is no forward-mode derivative.
    """
    return jnp.dot(x, kernel, precision=precision(x.dtype))


def _backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    dx = lax.dot_general(dy, kernel, (((1,), (1,)), ((), ())), precision=precision(x.dtype))
    return dx, _product_of_columns(x, dy)


product.defvjp(_saving(product), _backward)


def _product_of_columns(x: jax.Array, y: jax.Array) -> jax.Array:
    """x^T y: `[N, I]` and `[N, O]` give `[I, O]`."""
    columns = x.T
    if x.size <= 2**21 and x.shape[1] % 64 == 0:
        # Materialised: on CPU this halves the time for small x, because a product over columns is slow.
        columns = lax.optimization_barrier(columns)
    return jnp.dot(columns, y, precision=precision(x.dtype))


def precision(dtype: jnp.dtype) -> lax.Precision:
    """Full precision for float32 products, which GPUs would otherwise silently reduce to TF32."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT


def as_row(vector: jax.Array) -> jax.Array:
    return vector[None, None, None, :]
