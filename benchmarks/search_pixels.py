"""Every pixel its own adversarial head or last block, against PyTorch: a loop over targets, and torch.func.vmap.

Claims (2 CPU cores, float32, 224x224, 2 classes, 64 features, 20 steps, 2,048 fit points a step): every pixel's head in at
most 6 s, 20 times as fast as a loop and 3 times as fast as vmap; direction and exact line search in at most 3 s; pixels in
the last block 10 times as fast as a loop. A step in which no head of a chunk breaks the bound is spared the gradient of the
fit loss; in PyTorch a mapped gradient would need the loss in a pass of its own to know. The PyTorch sides are timed on some
targets and scaled to all, which favours neither. Times are those of the search; the frozen trunk of image and fit batches
runs once and is not counted on any side.
`python -m benchmarks.search_pixels` prints the ratios and writes benchmarks/results/search_pixels.json.
"""

import argparse
from collections.abc import Callable
from typing import Any

from .pixel_problems import (
    BLOCK_STEPS,
    CROP,
    FEATURES,
    FIT_PATCHES,
    FIT_POINTS,
    STEPS,
    block_search,
    block_work,
    head_searches,
    line_work,
    work,
)
from .record import write_result
from .timing import alternate, matmul_rate, temporary_bytes, threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--block-targets", type=int, default=512, help="pixels of the last-block comparison")
    parser.add_argument("--loop-targets", type=int, default=20, help="targets on which a PyTorch loop is timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="search_pixels", help="of the result file")
    options = parser.parse_args()

    from quam_jax.process import keep_freed_memory

    keep_freed_memory()  # as the command line does; all sides gain
    import torch

    torch.set_num_threads(threads())
    rows = [*head_rows(options), last_block_row(options)]
    write_result(options.name, rows, setting=vars(options))


def head_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The iterative search and the line search of all pixels in the head."""
    import numpy as np

    from quam_jax.core.layout import heads

    given = head_searches(options.size)
    count = given.count
    torch_loop, torch_mapped, mapped_count = torch_heads(
        np.asarray(given.features).reshape(-1, FEATURES),
        np.asarray(given.targets.labels)[:, 0, 0],
        np.asarray(given.fit.images).reshape(-1, FEATURES),
        np.asarray(given.fit.labels).reshape(-1),
        np.asarray(given.params["Conv.weight"][0, 0]),
        count=options.loop_targets,
    )
    sides = {"iterative": given.search(), "line": given.search(solver="line_search")}
    times = alternate({**sides, "loop": torch_loop, "vmap": torch_mapped}, rounds=options.rounds)
    loop = times["loop"] / options.loop_targets * count
    mapped = times["vmap"] / mapped_count * count
    rate = matmul_rate()
    common = {
        "threads": threads(),
        "precision": "float32 on all sides",
        "targets": count,
        "matmul_gflops": rate / 1e9,
        "seconds_torch_loop": loop,
        "seconds_torch_vmap": mapped,
    }
    done = (("pixels-head", "iterative", work(count, sides["iterative"]())), ("pixels-head-linesearch", "line", line_work(count)))
    return [
        {
            "name": name,
            "seconds": times[key],
            "ratio_published": loop / times[key],
            "ratio_best": mapped / times[key],
            "floor_fraction": operations / rate / times[key],
            "peak_bytes": temporary_bytes(heads, "_search_chunk", sides[key], static_argnums=(7, 8)),
            **common,
        }
        for name, key, operations in done
    ]


def torch_heads(
    features: Any, wanted: Any, fit_features: Any, fit_labels: Any, weight: Any, *, count: int
) -> tuple[Callable[[], None], Callable[[], None], int]:
    """The same search in PyTorch: a loop of `count` targets, and all of a chunk mapped; and the size of the chunk."""
    import numpy as np
    import torch
    from torch.func import grad, vmap

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(fit_features), (STEPS, FIT_POINTS))
    x = [torch.from_numpy(fit_features[rows]).to(device) for rows in drawn]
    y = [torch.from_numpy(fit_labels[rows].astype(np.int64)).to(device) for rows in drawn]
    own = torch.from_numpy(features.copy()).to(device)
    want = torch.from_numpy(wanted.astype(np.int64)).to(device)
    start_weight, start_bias = torch.from_numpy(weight.copy()).to(device), torch.zeros(2, device=device)
    entropy = torch.nn.functional.cross_entropy
    chunk = min(512, len(own))

    def loss(params: tuple, feature: torch.Tensor, label: torch.Tensor, fit_x: torch.Tensor, fit_y: torch.Tensor) -> torch.Tensor:
        w, b = params
        fit_loss = entropy(fit_x @ w + b, fit_y)
        return entropy((feature @ w + b)[None], label[None]) + 10.0 * torch.relu(fit_loss - 0.5)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def looped() -> None:
        for n in range(count):
            params = (start_weight.clone().requires_grad_(), start_bias.clone().requires_grad_())
            optimizer = torch.optim.Adam(params, lr=1e-2)
            for s in range(STEPS):
                total = loss(params, own[n], want[n], x[s], y[s])
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
        wait()

    gradients = vmap(grad(loss), in_dims=((0, 0), 0, 0, None, None))

    def mapped() -> None:
        params = (start_weight.expand(chunk, -1, -1).clone(), start_bias.expand(chunk, -1).clone())
        optimizer = torch.optim.Adam(params, lr=1e-2)
        for s in range(STEPS):
            for value, gradient in zip(params, gradients(params, own[:chunk], want[:chunk], x[s], y[s]), strict=True):
                value.grad = gradient
            optimizer.step()
        wait()

    return looped, mapped, chunk


def last_block_row(options: argparse.Namespace) -> dict[str, Any]:
    """Pixels in the last block of AttUNet-16, on the patches that they see."""
    import numpy as np
    import torch

    from converters.mapping import to_torch
    from quam_jax.core.layout import members

    steps, radius = BLOCK_STEPS, 3
    model, ours, count = block_search(options.block_targets)
    network = model.network
    device = "cuda" if torch.cuda.is_available() else "cpu"
    named = to_torch(network, model.params, model.stats)
    tail = [
        torch.from_numpy(np.array(named[f"{name}.{kind}"])).to(device)
        for name in ("Up_conv2.conv1.0", "Up_conv2.conv2.0", "Up_conv2.conv3.0", "Conv")
        for kind in ("weight", "bias")
    ]
    side = 2 * radius + 1
    wide = 2 * radius + CROP
    fit_x = torch.randn(steps, FIT_PATCHES, 32, wide, wide, device=device)
    fit_y = torch.randint(0, 2, (steps, FIT_PATCHES, CROP, CROP), device=device)
    own = torch.randn(options.loop_targets, 1, 32, side, side, device=device)
    want = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
    entropy, conv = torch.nn.functional.cross_entropy, torch.nn.functional.conv2d

    def run(params: list, x: torch.Tensor) -> torch.Tensor:
        for k in range(0, 6, 2):
            x = torch.relu(conv(x, params[k], params[k + 1]))
        return conv(x, params[6], params[7])

    def looped() -> None:
        for patch in own:
            params = [value.clone().requires_grad_() for value in tail]
            optimizer = torch.optim.Adam(params, lr=1e-4)
            for s in range(steps):
                fit_loss = entropy(run(params, fit_x[s]), fit_y[s])
                total = entropy(run(params, patch), want) + 10.0 * torch.relu(fit_loss - 0.5)
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    times = alternate({"ours": ours, "loop": looped}, rounds=options.rounds)
    loop = times["loop"] / options.loop_targets * count
    rate = matmul_rate()
    return {
        "name": "pixels-last-block",
        "seconds": times["ours"],
        "ratio_published": loop / times["ours"],
        "ratio_best": loop / times["ours"],
        "floor_fraction": block_work(count) / rate / times["ours"],
        "peak_bytes": temporary_bytes(members, "_step", ours, static_argnums=(0, 5), donate_argnums=3),
        "threads": threads(),
        "precision": "float32 on both sides",
        "targets": count,
        "matmul_gflops": rate / 1e9,
        "seconds_torch_loop": loop,
    }


if __name__ == "__main__":
    main()
