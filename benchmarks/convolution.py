"""One 3x3 convolution and its two gradients, as we run them, as XLA runs them by itself, and in PyTorch, on CPU in float32.

It says where the seconds of `benchmarks.forward` go. "ours" is `quam_jax.networks.convolution` compiled with the options of
`quam_jax.core.compilation`, "xla" a plain `lax.conv_general_dilated` without either. Times are medians of calls of one side after
another, with a pause between sides: PyTorch's threads stay busy for a while after a call, which short calls of others would feel.
`python -m benchmarks.convolution` prints Gflop/s and writes benchmarks/results/convolution.json.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

from .record import write_result
from .timing import matmul_rate, seconds, threads

SHAPES = ((5, 96, 16), (5, 48, 32), (4, 128, 32), (4, 64, 64), (4, 32, 128), (4, 16, 256))  # images, side, channels
PAUSE = 0.5  # seconds


def measure(count: int, side: int, channels: int, *, rounds: int) -> dict[str, Any]:
    """One shape: Gflop/s of the convolution, of the gradient in its input and of that in its weight."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from jax import lax

    from quam_jax.core.compilation import compiler_options
    from quam_jax.networks.convolution import convolution

    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((count, side, side, channels)).astype(np.float32) for _ in range(2))
    w = rng.standard_normal((3, 3, channels, channels)).astype(np.float32)

    def ours(x: Any, w: Any) -> Any:
        return convolution(x, w, stride=(1, 1), padding=(1, 1), dilation=(1, 1))

    def plain(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def jax_sides(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        operands = [jnp.asarray(a) for a in (x, w, dy)]
        kinds = {
            "forward": lambda x, w, dy: function(x, w),
            "input gradient": lambda x, w, dy: jax.vjp(lambda x: function(x, w), x)[1](dy)[0],
            "weight gradient": lambda x, w, dy: jax.vjp(lambda w: function(x, w), w)[1](dy)[0],
        }
        compiled = {kind: jax.jit(call, compiler_options=options).lower(*operands).compile() for kind, call in kinds.items()}
        return {kind: lambda call=call: jax.block_until_ready(call(*operands)) for kind, call in compiled.items()}

    def torch_sides() -> dict[str, Callable[[], Any]]:
        last = torch.channels_last
        tx, tdy = (torch.from_numpy(np.moveaxis(a, -1, 1).copy()).contiguous(memory_format=last) for a in (x, dy))
        tw = torch.from_numpy(w.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=last)
        arguments = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        backward = torch.ops.aten.convolution_backward
        return {
            "forward": lambda: torch.nn.functional.conv2d(tx, tw, padding=1),
            "input gradient": lambda: backward(tdy, tx, tw, *arguments, [True, False, False]),
            "weight gradient": lambda: backward(tdy, tx, tw, *arguments, [False, True, False]),
        }

    sides = {"ours": jax_sides(ours, compiler_options()), "xla": jax_sides(plain, {}), "torch": torch_sides()}
    operations = 2 * count * side**2 * 9 * channels**2
    row: dict[str, Any] = {"name": f"{count} x {side}x{side} x {channels}"}
    with torch.inference_mode():
        for kind in sides["ours"]:
            for side, calls in sides.items():
                time.sleep(PAUSE)
                row[f"{kind} {side}"] = operations / seconds(calls[kind], rounds) / 1e9
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    from quam_jax.process import keep_freed_memory

    keep_freed_memory()  # as the command line does; all sides gain
    import torch

    torch.set_num_threads(threads())
    rows = [measure(*shape, rounds=options.rounds) for shape in SHAPES]
    write_result("convolution", rows, units="Gflop/s", matmul_gflops=matmul_rate() / 1e9, threads=threads())


if __name__ == "__main__":
    main()
