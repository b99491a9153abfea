"""Elementwise operations of imported graphs: arithmetic, comparisons, activations and casts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array

from .. import activations
from .values import Last, aligned, elementwise, is_array, plain, register

# 64-bit types are computed in 32 bits: JAX's default, and enough for indices and logits
DTYPES: dict[str, Any] = {
    "float16": jnp.float16,
    "bfloat16": jnp.bfloat16,
    "float32": jnp.float32,
    "float64": jnp.float32,
    "bool": jnp.bool_,
    "uint8": jnp.uint8,
    "int8": jnp.int8,
    "int16": jnp.int16,
    "int32": jnp.int32,
    "int64": jnp.int32,
}

_UNARY: dict[str, Callable[..., Any]] = {
    "abs": jnp.abs,
    "acos": jnp.arccos,
    "asin": jnp.arcsin,
    "atan": jnp.arctan,
    "bitwise_not": jnp.bitwise_not,
    "ceil": jnp.ceil,
    "cos": jnp.cos,
    "cosh": jnp.cosh,
    "erf": special.erf,
    "erfc": special.erfc,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "floor": jnp.floor,
    "isfinite": jnp.isfinite,
    "isinf": jnp.isinf,
    "isnan": jnp.isnan,
    "log": jnp.log,
    "log10": jnp.log10,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "log_sigmoid": jax.nn.log_sigmoid,
    "logical_not": jnp.logical_not,
    "neg": jnp.negative,
    "reciprocal": lambda x: 1 / x,
    "relu": activations.relu,
    "relu6": lambda x: jnp.clip(x, 0, 6),
    "round": jnp.round,
    "rsqrt": jax.lax.rsqrt,
    "sigmoid": jax.nn.sigmoid,
    "sign": jnp.sign,
    "sgn": jnp.sign,
    "silu": jax.nn.silu,
    "sin": jnp.sin,
    "sinh": jnp.sinh,
    "softsign": jax.nn.soft_sign,
    "sqrt": jnp.sqrt,
    "square": jnp.square,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
    "trunc": jnp.trunc,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "hardsigmoid": lambda x: jnp.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * (jnp.clip(x + 3, 0, 6) / 6),
    "selu": jax.nn.selu,
}

_BINARY: dict[str, Callable[..., Any]] = {
    "atan2": jnp.arctan2,
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
    "__and__": jnp.bitwise_and,
    "__or__": jnp.bitwise_or,
    "eq": jnp.equal,
    "floor_divide": jnp.floor_divide,
    "fmod": jnp.fmod,
    "ge": jnp.greater_equal,
    "gt": jnp.greater,
    "le": jnp.less_equal,
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "lt": jnp.less,
    "max.other": jnp.maximum,
    "maximum": jnp.maximum,
    "min.other": jnp.minimum,
    "minimum": jnp.minimum,
    "mul": jnp.multiply,
    "multiply": jnp.multiply,
    "ne": jnp.not_equal,
    "not_equal": jnp.not_equal,
    "remainder": jnp.remainder,
    "true_divide": jnp.true_divide,
}

for _name, _function in _UNARY.items():
    elementwise(_name)(functools.partial(lambda f, x: f(x), _function))
for _name, _function in _BINARY.items():
    elementwise(_name)(functools.partial(lambda f, x, other: f(x, other), _function))


@elementwise("add")
def add(x: Array, other: Any, alpha: float = 1) -> Array:
    """x + alpha other."""
    return x + (other if alpha == 1 else alpha * other)


@elementwise("sub", "subtract")
def subtract(x: Array, other: Any, alpha: float = 1) -> Array:
    """x - alpha other."""
    return x - (other if alpha == 1 else alpha * other)


@elementwise("rsub")
def subtract_from(x: Array, other: Any, alpha: float = 1) -> Array:
    """other - alpha x."""
    return other - (x if alpha == 1 else alpha * x)


@elementwise("div", "divide")
def divide(x: Array, other: Any, rounding_mode: str | None = None) -> Array:
    """x / other, rounded down (`floor`) or to zero (`trunc`) where asked."""
    if rounding_mode == "floor":
        return jnp.floor_divide(x, other)
    quotient = jnp.true_divide(x, other)
    return quotient if rounding_mode is None else jnp.trunc(quotient).astype(jnp.result_type(x, other))


@elementwise("pow")
def power(x: Any, exponent: Any) -> Array:
    """x ** exponent; whole constant exponents by products."""
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    if not is_array(exponent) and exponent == 0.5:
        return jnp.sqrt(x)
    return jnp.asarray(x, jnp.result_type(x, float) if isinstance(exponent, float) else None) ** exponent


@elementwise("addcmul")
def add_product(x: Array, tensor1: Array, tensor2: Array, value: float = 1) -> Array:
    """x + value tensor1 tensor2."""
    return x + value * tensor1 * tensor2


@elementwise("addcdiv")
def add_quotient(x: Array, tensor1: Array, tensor2: Array, value: float = 1) -> Array:
    """x + value tensor1 / tensor2."""
    return x + value * tensor1 / tensor2


@elementwise("lerp")
def mix(x: Array, end: Array, weight: Any) -> Array:
    """x + weight (end - x)."""
    return x + weight * (end - x)


@elementwise("where")
def choose(condition: Array, x: Any, other: Any) -> Array:
    """x where the condition holds, else other."""
    return jnp.where(condition, x, other)


@elementwise("masked_fill")
def fill_masked(x: Array, mask: Array, value: Any) -> Array:
    """The value where the mask is set."""
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


@elementwise("clamp", "clip")
def clamp(x: Array, min: Any = None, max: Any = None) -> Array:
    """x inside [min, max]."""
    return jnp.clip(x, min, max)


@elementwise("hardtanh")
def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x inside [min_val, max_val]."""
    return jnp.clip(x, min_val, max_val)


@elementwise("clamp_min")
def clamp_min(x: Array, min: Any) -> Array:
    """The larger of x and min."""
    return jnp.maximum(x, min)


@elementwise("clamp_max")
def clamp_max(x: Array, max: Any) -> Array:
    """The smaller of x and max."""
    return jnp.minimum(x, max)


@elementwise("leaky_relu")
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """x, or its product with a slope where negative."""
    return jnp.where(x > 0, x, x * negative_slope)


@elementwise("rrelu")
def rrelu(x: Array, lower: float = 1 / 8, upper: float = 1 / 3, *_: Any) -> Array:
    """Leaky ReLU of the mean slope, as in eval mode."""
    return leaky_relu(x, (lower + upper) / 2)


@elementwise("elu")
def elu(x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    """scale x, or scale alpha (exp(input_scale x) - 1) where negative."""
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0.0, x) * input_scale))


@elementwise("celu")
def celu(x: Array, alpha: float = 1) -> Array:
    """x, or alpha (exp(x / alpha) - 1) where negative."""
    return jax.nn.celu(x, alpha)


@elementwise("gelu")
def gelu(x: Array, approximate: str = "none") -> Array:
    """x times the normal distribution function, or its tanh approximation."""
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@elementwise("softplus")
def softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    """log(1 + exp(beta x)) / beta, or x beyond the threshold."""
    return jnp.where(x * beta > threshold, x, jax.nn.softplus(jnp.minimum(x * beta, threshold)) / beta)


@elementwise("threshold")
def threshold(x: Array, threshold: float, value: float) -> Array:
    """x above the threshold, else the value."""
    return jnp.where(x > threshold, x, value)


@elementwise("hardshrink")
def hard_shrink(x: Array, lambd: float = 0.5) -> Array:
    """Zero inside [-lambda, lambda]."""
    return jnp.where(jnp.abs(x) > lambd, x, 0.0)


@elementwise("softshrink")
def soft_shrink(x: Array, lambd: float = 0.5) -> Array:
    """x moved to zero by lambda."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - lambd, 0.0)


@register("prelu", "_prelu_kernel")
def prelu(x: Any, weight: Any) -> Any:
    """x, or its product with a weight of its channel where negative."""
    slope = plain(weight)
    if isinstance(x, Last):
        return Last(jnp.where(x.array > 0, x.array, x.array * aligned(slope.reshape(-1), x.array)))
    x = plain(x)
    slope = slope.reshape(-1) if x.ndim < 2 else slope.reshape(1, -1, *(1,) * (x.ndim - 2))
    return jnp.where(x > 0, x, x * slope)


@elementwise(
    "clone",
    "alias",
    "detach",
    "contiguous",
    "lift_fresh_copy",
    "lift_fresh",
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "identity",
)
def keep(x: Array, *_: Any, **__: Any) -> Array:
    """The value itself: in eval mode dropout does nothing."""
    return x


@elementwise("type_as")
def cast_like(x: Array, other: Array) -> Array:
    """The value in the type of another."""
    return x.astype(other.dtype)


@elementwise("_to_copy", "to")
def cast(x: Array, *given: Any, dtype: str | None = None, **_: Any) -> Array:
    """The value in another type; devices and memory formats mean nothing here."""
    for value in given:
        dtype = value if isinstance(value, str) and value in DTYPES else dtype
    return x if dtype is None else jnp.asarray(x).astype(DTYPES[dtype])
