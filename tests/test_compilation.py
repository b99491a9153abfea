"""Compiling with the backend's options: they are applied, and left to the outer function while one is traced."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from quam_jax.core import compilation


@compilation.jit(static_argnames="times")
def grow(x: jax.Array, times: int = 2) -> jax.Array:
    return times * x * x


def test_functions_can_be_traced_by_others() -> None:
    x = jnp.arange(3.0)
    assert grow(x, times=3).tolist() == [0, 3, 12]
    assert jax.jit(lambda y: grow(y) + 1)(x).tolist() == [1, 3, 9]
    assert jax.grad(lambda y: grow(y))(3.0) == 12
    assert jax.vmap(grow)(x).tolist() == [0, 2, 8]


def test_options_that_xla_does_not_know_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_CPU_OPTIONS", {"xla_no_such_option": "1", "xla_cpu_enable_fast_math": False})
    compilation.compiler_options.cache_clear()
    try:
        expected = {"xla_cpu_enable_fast_math": False} if jax.default_backend() == "cpu" else {}
        assert compilation.compiler_options() == expected
    finally:
        compilation.compiler_options.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are those of the CPU")
def test_convolutions_stay_with_xla() -> None:
    def convolve(x: jax.Array, w: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    shapes = jnp.ones((1, 48, 48, 32)), jnp.ones((3, 3, 32, 32))
    compiled = jax.jit(convolve, compiler_options=compilation.compiler_options()).lower(*shapes).compile()
    assert "convolution(" in compiled.as_text() and "ynn" not in compiled.as_text()


def test_calls_side_by_side_keep_order_and_settings() -> None:
    running, together, precisions = set(), [], []

    def call(item: int) -> int:
        running.add(threading.get_ident())
        together.append((item, len(running)))
        precisions.append(jax.config.jax_default_matmul_precision)
        time.sleep(0.05 if item % 2 else 0.15)  # later ones end earlier
        running.discard(threading.get_ident())
        return item * item

    with jax.default_matmul_precision("highest"):
        assert list(compilation.side_by_side(call, range(7))) == [n * n for n in range(7)]
    assert precisions == ["highest"] * 7
    assert together[0] == (0, 1) and together[1][1] == 1  # the first one alone
    assert max(count for _, count in together) <= compilation.AT_ONCE
    assert list(compilation.side_by_side(call, [3])) == [9] and list(compilation.side_by_side(call, [])) == []


def test_an_error_of_a_call_side_by_side_is_raised() -> None:
    def call(item: int) -> int:
        if item == 2:
            raise ValueError("item 2")
        return item

    found = compilation.side_by_side(call, range(4), compiled=True)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(found)
