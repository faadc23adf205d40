"""`each`: apply a function of one image to many, in the form that the backend runs fast.

On CPU images are measured one by one: the planes of an image stay in the cache (about twice as fast as a
batched form), memory is bounded, and the same instructions score an image in any batch. Accelerators process
the whole batch at once. `jax.vmap` would undo that choice, because it rewrites the function; so `each` is a
primitive, and the choice is made at lowering, after all transformations:

* `vmap` merges its axis into the leading axis: a mapped metric is the metric of a batch, at any nesting;
* the tangent is `each` of the function's tangent, linear in its last operands, and the transpose of that is
  `each` of the tangent's transpose: forward and reverse mode, of any order, keep the form. Operands are
  stored, intermediate results are not: a gradient recomputes them, image by image.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

# Operands `[N, ...]`, results `[N, ...]`. `program` is the function of one image, linear in its last `linear`
# operands.
each_p = core.Primitive("each")
each_p.multiple_results = True


def each(measure: Callable[..., Any], lead: tuple[int, ...], *arrays: jax.Array) -> Any:
    """Apply `measure` to every image of the leading axes `lead`, which all arrays share; there may be none.

    Args:
      measure: function of one image's arrays that returns a tree of arrays. It may close over constants only.
      lead: sizes of the leading axes.
      *arrays: arguments of `measure` for all images, each `[*lead, ...]`.
    """
    flat = [array.reshape(math.prod(lead), *array.shape[len(lead) :]) for array in arrays]
    structure: Any = None

    def leaves(*items: jax.Array) -> list[jax.Array]:
        nonlocal structure
        found, structure = jax.tree.flatten(measure(*items))
        return found

    results = _bind(leaves, flat)
    return jax.tree.unflatten(structure, [leaf.reshape(*lead, *leaf.shape[1:]) for leaf in results])


def one_by_one(*operands: jax.Array, program: core.ClosedJaxpr, linear: int) -> list[jax.Array]:
    """CPU form: one image after the other."""
    return jax.lax.map(lambda items: core.jaxpr_as_fun(program)(*items), operands)


def all_at_once(*operands: jax.Array, program: core.ClosedJaxpr, linear: int) -> list[jax.Array]:
    """Accelerator form: the whole batch at once."""
    return jax.vmap(core.jaxpr_as_fun(program))(*operands)


def _bind(function: Callable[..., Sequence[jax.Array]], operands: Sequence[Any], linear: int = 0) -> Any:
    types: list[Any] = []

    def remember(*items: jax.Array) -> jax.Array:
        types[:] = [jax.typeof(item) for item in items]
        return jnp.zeros(())

    jax.eval_shape(jax.vmap(remember), *operands)  # also records how operands vary over devices (`shard_map`)
    program = jax.make_jaxpr(function)(*types)
    return each_p.bind(*operands, program=program, linear=linear)


@each_p.def_impl
def _run(*operands: jax.Array, **params: Any) -> list[jax.Array]:
    return jax.lax.platform_dependent(
        *operands, cpu=partial(one_by_one, **params), default=partial(all_at_once, **params)
    )


@each_p.def_abstract_eval
def _types(*operands: Any, program: core.ClosedJaxpr, linear: int) -> list[Any]:
    count = operands[0].shape[0]
    return [aval.update(shape=(count, *aval.shape), weak_type=False) for aval in program.out_avals]


def _batched(operands: Sequence[Any], axes: Sequence[int | None], **params: Any) -> Any:
    size, count = next(
        (x.shape[axis], x.shape[1 - min(axis, 1)])
        for x, axis in zip(operands, axes, strict=True)
        if axis is not None
    )

    def joined(x: jax.Array, axis: int | None) -> jax.Array:
        if axis is None:
            x = jnp.broadcast_to(x, (size, *x.shape))
        return jnp.moveaxis(x, axis or 0, 0).reshape(size * count, *x.shape[2:])

    inputs = [joined(x, axis) for x, axis in zip(operands, axes, strict=True)]
    results = each_p.bind(*inputs, **params)
    return [leaf.reshape(size, count, *leaf.shape[1:]) for leaf in results], [0] * len(results)


def _tangents(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    results = each_p.bind(*primals, **params)
    function, still = core.jaxpr_as_fun(params["program"]), len(primals) - params["linear"]
    moving = [k for k, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]
    if moving[0] >= still:  # linear in all operands that vary: its own tangent
        given = [ad.instantiate_zeros(tangent) for tangent in tangents[still:]]
        return results, each_p.bind(*primals[:still], *given, **params)

    def pushed(*items: jax.Array) -> Sequence[jax.Array]:
        base, steps = items[: len(primals)], items[len(primals) :]
        start = [base[k] for k in moving]
        return jax.jvp(lambda *values: function(*_replaced(base, moving, values)), start, list(steps))[1]

    return results, _bind(pushed, [*primals, *(tangents[k] for k in moving)], linear=len(moving))


def _transposed(
    cotangents: Sequence[Any], *operands: Any, program: core.ClosedJaxpr, linear: int
) -> list[Any]:
    sought = [k for k, operand in enumerate(operands) if ad.is_undefined_primal(operand)]
    known = [k for k in range(len(operands)) if k not in sought]
    given = [k for k, cotangent in enumerate(cotangents) if not isinstance(cotangent, ad.Zero)]
    function, nothing = core.jaxpr_as_fun(program), [None] * len(operands)

    def pulled(*items: jax.Array) -> Sequence[jax.Array]:
        base = _replaced(nothing, known, items[: len(known)])

        def used(*values: jax.Array) -> list[jax.Array]:
            results = function(*_replaced(base, sought, values))
            return [results[k] for k in given]

        return jax.linear_transpose(used, *(program.in_avals[k] for k in sought))(list(items[len(known) :]))

    inputs = [*(operands[k] for k in known), *(cotangents[k] for k in given)]
    return _replaced(nothing, sought, _bind(pulled, inputs, linear=len(given)))


def _replaced(items: Sequence[Any], places: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """Copy of `items`, with those at `places` replaced by `values`."""
    new = dict(zip(places, values, strict=True))
    return [new.get(k, item) for k, item in enumerate(items)]


batching.primitive_batchers[each_p] = _batched
ad.primitive_jvps[each_p] = _tangents
ad.primitive_transposes[each_p] = _transposed
mlir.register_lowering(each_p, mlir.lower_fun(all_at_once, multiple_results=True))
mlir.register_lowering(each_p, mlir.lower_fun(one_by_one, multiple_results=True), platform="cpu")
