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

from .record import write_result
from .timing import alternate, matmul_rate, temporary_bytes, threads

FEATURES, FIT_POINTS, STEPS, FIT_PATCHES, CROP = 64, 2048, 20, 4, 4


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
    import jax
    import jax.numpy as jnp
    import numpy as np

    from quam_jax.config import SearchConfig
    from quam_jax.config.build import build_procedure
    from quam_jax.core.layout import heads
    from quam_jax.core.layout.choose import AUTO
    from quam_jax.core.types import FitData
    from quam_jax.models.model import Network
    from quam_jax.targets.pixels import all_pixels, pixel_targets

    size = options.size
    rng = np.random.default_rng(0)
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=FEATURES, is_batchnorm=False)
    head = {"Conv.weight": rng.normal(size=(1, 1, FEATURES, 2)) * 0.5, "Conv.bias": np.zeros(2)}
    params = {n: jnp.asarray(head.get(n, np.zeros(s)), jnp.float32) for n, s in network.shapes()[0].items()}
    features = jnp.asarray(np.maximum(rng.normal(size=(1, size, size, FEATURES)), 0), jnp.float32)
    fit_features = jnp.asarray(np.maximum(rng.normal(size=(1, 4, size, size, FEATURES)), 0), jnp.float32)
    weight = params["Conv.weight"][0, 0]
    probs = np.asarray(jax.nn.softmax(features[0] @ weight))
    fit_probs = np.asarray(jax.nn.softmax(fit_features @ weight))
    fit_labels = (rng.random(fit_probs.shape[:-1]) < fit_probs[..., 1]).astype(np.int32)
    fit = FitData(fit_features, jnp.asarray(fit_labels))
    targets = pixel_targets(all_pixels((size, size)), probs, members=1)
    count = targets.points.shape[0]

    def search(**changes: Any) -> Callable[[], object]:
        config = SearchConfig(space="head", members=1, steps=STEPS, fit_points=FIT_POINTS, learning_rate=1e-2, **changes)
        procedure = build_procedure(config, network)

        def call() -> object:
            return heads.search_head_targets(
                network,
                params,
                features,
                fit,
                targets,
                shape=(size, size),
                procedure=procedure,
                steps=procedure.schedule.plan(1),
                key=jax.random.key(0),
                layout=AUTO,
            )

        return call

    torch_loop, torch_mapped, mapped_count = torch_heads(
        np.asarray(features).reshape(-1, FEATURES),
        np.asarray(targets.labels)[:, 0, 0],
        np.asarray(fit_features).reshape(-1, FEATURES),
        fit_labels.reshape(-1),
        np.asarray(weight),
        count=options.loop_targets,
    )
    sides = {"iterative": search(), "line": search(solver="line_search")}
    times = alternate({**sides, "loop": torch_loop, "vmap": torch_mapped}, rounds=options.rounds)
    loop = times["loop"] / options.loop_targets * count
    mapped = times["vmap"] / mapped_count * count
    rate = matmul_rate()
    product = 2 * count * FIT_POINTS * (FEATURES + 1)  # of fit points by features, for one column a target: the margin form
    operations = product * (STEPS + 1 + STEPS * pulled(sides["iterative"]()))
    line_operations = product + 2 * count * (FEATURES + 1) ** 2
    common = {
        "threads": threads(),
        "precision": "float32 on all sides",
        "targets": count,
        "matmul_gflops": rate / 1e9,
        "seconds_torch_loop": loop,
        "seconds_torch_vmap": mapped,
    }
    return [
        {
            "name": name,
            "seconds": times[key],
            "ratio_published": loop / times[key],
            "ratio_best": mapped / times[key],
            "floor_fraction": work / rate / times[key],
            "peak_bytes": temporary_bytes(heads, "_search_chunk", sides[key], static_argnums=(7, 8)),
            **common,
        }
        for name, key, work in (("pixels-head", "iterative", operations), ("pixels-head-linesearch", "line", line_operations))
    ]


def pulled(found: Any) -> float:
    """The part of the steps of a chunk in which some head breaks the bound, so that the gradient of the fit loss is needed."""
    import jax
    import numpy as np

    from quam_jax.core.layout import heads

    chunk = min(heads.LARGEST, heads.NUMBERS["cpu" if jax.default_backend() == "cpu" else "other"] // FIT_POINTS)
    rows = (found.fit_loss > found.bound).reshape(len(found.fit_loss), -1)
    return float(np.mean([rows[start : start + chunk].any(0).mean() for start in range(0, len(rows), chunk)]))


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
    import jax
    import numpy as np
    import torch

    from converters.mapping import to_torch
    from quam_jax.config import SearchConfig
    from quam_jax.core.layout import members
    from quam_jax.core.searching import search_prepared
    from quam_jax.models.model import Network, SegmentationModel
    from quam_jax.models.predict import fit_data, predict
    from quam_jax.models.prepare import prepare
    from quam_jax.targets.pixels import pixel_targets

    size, steps, radius = 96, 6, 3
    rng = np.random.default_rng(0)
    arguments = dict(in_channels=1, n_classes=2, channels=16, is_batchnorm=False, drop=0.0, decoder_drop=0.0)
    network = Network.create("att_unet", **arguments)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0, impl="rbg")))
    images = rng.normal(size=(1, 4, size, size, 1)).astype(np.float32)
    config = SearchConfig(space="last_block", members=1, steps=steps, fit_patches=FIT_PATCHES)
    prepared = prepare(model, fit_data(model, images, (images[..., 0] > 0.5).astype(np.int32)), config)
    inner = (np.arange(size * size).reshape(size, size)[8:-8, 8:-8]).ravel()
    targets = pixel_targets(
        inner[:: max(1, len(inner) // options.block_targets)][: options.block_targets],
        np.asarray(predict(model, images[0, 0])),
        members=1,
    )
    count = targets.points.shape[0]

    def ours() -> None:
        jax.block_until_ready(search_prepared(prepared, images[0, 0], targets, key=jax.random.key(0)))

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
    # a layer takes three products a step, the first one two, because its input has no gradient
    operations = (
        count
        * steps
        * sum(
            2 * ((CROP + 2 * ring) ** 2 * FIT_PATCHES + (1 + 2 * ring) ** 2) * 9 * i * 16 * products
            for ring, i, products in ((2, 32, 2), (1, 16, 3), (0, 16, 3))
        )
    )
    return {
        "name": "pixels-last-block",
        "seconds": times["ours"],
        "ratio_published": loop / times["ours"],
        "ratio_best": loop / times["ours"],
        "floor_fraction": operations / rate / times["ours"],
        "peak_bytes": temporary_bytes(members, "_step", ours, static_argnums=(0, 5), donate_argnums=3),
        "threads": threads(),
        "precision": "float32 on both sides",
        "targets": count,
        "matmul_gflops": rate / 1e9,
        "seconds_torch_loop": loop,
    }


if __name__ == "__main__":
    main()
