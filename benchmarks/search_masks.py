"""Masks in the full space: one image searched by us, by the published procedure in PyTorch, and by the best PyTorch we can.

Claim (CPU, AttUNet-16, 96x96, 2 members x 6 steps, 100 fit batches of 4): at least 5 times as fast as the published
procedure without its data loading, and at least as fast as the best PyTorch. The published procedure runs every fit batch
through the given network for every member of every image, and the test image once more after each step. The best PyTorch
caches the reference losses, joins fit batch and image in one pass, uses channels_last, and runs members one after the other
or mapped by torch.func.vmap; or, as we do, without the gradient of a fit loss that keeps the bound, one after the other on all
cores or each on a core of its own; whichever is fastest.
`python -m benchmarks.search_masks` prints the ratios and writes benchmarks/results/search_masks.json.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .record import write_result
from .timing import alternate, matmul_rate, threads

COEFFICIENTS = (1.0, 33.0, 67.0, 99.0, 133.0, 167.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batches", type=int, default=100, help="fit batches of 4")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--compute", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--chunk", type=int, default=0, help="members in flight; 0: as the plan chooses")
    parser.add_argument("--name", default="search_masks", help="of the result file")
    options = parser.parse_args()

    from quam_jax.process import keep_freed_memory

    keep_freed_memory()  # as the command line does; all sides gain
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap

    from converters.mapping import to_torch
    from quam_jax.config import SearchConfig
    from quam_jax.core.layout.choose import Layout
    from quam_jax.core.searching import search_prepared
    from quam_jax.models.model import Network, SegmentationModel
    from quam_jax.models.predict import fit_data
    from quam_jax.models.prepare import prepare
    from quam_jax.targets.masks import mask_targets
    from quam_jax.targets.wanted.dilate import dilate
    from quam_jax.targets.wanted.erode import erode

    from .torch_att_unet import AttUNet

    torch.set_num_threads(threads())
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    size, members, steps = options.size, options.members, len(COEFFICIENTS)
    rng = np.random.default_rng(0)
    fit_images = rng.normal(size=(options.batches, 4, size, size, 1)).astype(np.float32)
    fit_labels = (fit_images[..., 0] > 0.5).astype(np.int32)
    images = rng.normal(size=(options.images, size, size, 1)).astype(np.float32)
    place = np.indices((size, size)) - size / 2
    mask = jnp.asarray((place**2).sum(0) < (size / 4) ** 2, jnp.int32)
    wanted = [dilate(mask, radius=3), erode(mask, radius=3)]
    arguments = dict(in_channels=1, n_classes=2, channels=options.channels, is_batchnorm=False, drop=0.0, decoder_drop=0.0)
    network = Network.create("att_unet", **arguments)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0, impl="rbg")))

    # ours
    config = SearchConfig(members=members, steps=steps, learning_rate=5e-4, mode="eval", compute=options.compute)
    prepared = prepare(model, fit_data(model, fit_images, fit_labels), config)
    targets = mask_targets(wanted, members=members)
    layout = Layout(chunk=options.chunk)

    def ours() -> None:
        for image in images:
            jax.block_until_ready(search_prepared(prepared, image, targets, key=jax.random.key(0), layout=layout))

    # PyTorch
    module = AttUNet(**arguments)
    state = {k: torch.from_numpy(np.array(v)) for k, v in to_torch(network, model.params, model.stats).items()}
    module.load_state_dict(state, strict=False)
    module.to(device).eval()

    def channels_last(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(device).contiguous(memory_format=torch.channels_last)

    tests, fits = channels_last(images), [channels_last(x) for x in fit_images]
    labels = [torch.from_numpy(y.astype(np.int64)).to(device) for y in fit_labels]
    asked = [torch.from_numpy(np.array(w, np.int64))[None].to(device) for w in wanted]
    entropy = torch.nn.functional.cross_entropy
    used = [(s * 50 + 49) % options.batches for s in range(steps)]

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        copy = AttUNet(**arguments).to(device).eval()
        copy.load_state_dict(module.state_dict())
        return copy, torch.optim.Adam(copy.parameters(), lr=5e-4)

    def published(count: int = 1) -> None:
        for image in tests[:count]:
            for m in range(members):
                with torch.no_grad():
                    reference = [entropy(module(x), y) for x, y in zip(fits, labels, strict=True)]
                copy, optimizer = fresh()
                for s, coefficient in enumerate(COEFFICIENTS):
                    fit_loss = entropy(copy(fits[used[s]]), labels[used[s]])
                    objective = entropy(copy(image[None]), asked[m % 2])
                    optimizer.zero_grad()
                    (objective + coefficient * (fit_loss - reference[used[s]] - 0.05)).backward()
                    optimizer.step()
                    with torch.no_grad():
                        copy(image[None]).softmax(1)
        wait()

    with torch.no_grad():
        references = [float(entropy(module(x), y)) for x, y in zip(fits, labels, strict=True)]
    bounds = [(1 + config.slack) * reference for reference in references]

    def spared_member(image: torch.Tensor, m: int) -> None:
        copy, optimizer = fresh()
        kept = True
        for s in range(steps):
            fit, label, bound, want = fits[used[s]], labels[used[s]], bounds[used[s]], asked[m % 2]
            optimizer.zero_grad()
            if s == 0:
                kept = references[used[0]] <= bound
            elif kept:
                with torch.no_grad():
                    kept = float(entropy(copy(fit), label)) <= bound
            if kept:
                total = entropy(copy(image[None]), want)
            else:
                logits = copy(torch.cat([fit, image[None]]))
                fit_loss = entropy(logits[:4], label)
                kept = float(fit_loss.detach()) <= bound
                total = entropy(logits[4:], want) + 10.0 * torch.relu(fit_loss - bound)
            total.backward()
            optimizer.step()
        with torch.no_grad():
            copy(torch.cat([fits[used[0]], image[None]]))

    def spared() -> None:
        for image in tests:
            for m in range(members):
                spared_member(image, m)
        wait()

    pool = ThreadPoolExecutor(threads(), initializer=torch.set_num_threads, initargs=(1,))

    def side_by_side() -> None:
        for image in tests:
            list(pool.map(spared_member, [image] * members, range(members)))
        torch.set_num_threads(threads())

    def looped() -> None:
        for image in tests:
            for m in range(members):
                copy, optimizer = fresh()
                for s in range(steps):
                    logits = copy(torch.cat([fits[used[s]], image[None]]))
                    violation = entropy(logits[:4], labels[used[s]]) - bounds[used[s]]
                    total = entropy(logits[4:], asked[m % 2]) + 10.0 * torch.relu(violation)
                    optimizer.zero_grad()
                    total.backward()
                    optimizer.step()
                with torch.no_grad():
                    copy(torch.cat([fits[used[0]], image[None]]))
        wait()

    def mapped_loss(
        params: dict, buffers: dict, x: torch.Tensor, y: torch.Tensor, bound: float, want: torch.Tensor
    ) -> torch.Tensor:
        logits = functional_call(module, (params, buffers), (x,))
        return entropy(logits[4:], want) + 10.0 * torch.relu(entropy(logits[:4], y) - bound)

    step_of_all = vmap(grad(mapped_loss), in_dims=(0, 0, None, None, None, 0))
    wants = torch.stack([asked[m % 2] for m in range(members)])

    def mapped() -> None:
        for image in tests:
            params, buffers = stack_module_state([fresh()[0] for _ in range(members)])
            optimizer = torch.optim.Adam(params.values(), lr=5e-4)
            for s in range(steps):
                found = step_of_all(
                    params, buffers, torch.cat([fits[used[s]], image[None]]), labels[used[s]], bounds[used[s]], wants
                )
                for name, value in params.items():
                    value.grad = found[name]
                optimizer.step()
            with torch.no_grad():
                joined = torch.cat([fits[used[0]], image[None]])
                vmap(lambda p, b, x=joined: functional_call(module, (p, b), (x,)))(params, buffers)
        wait()

    times = alternate({"ours": ours, "looped": looped, "spared": spared, "side_by_side": side_by_side, "mapped": mapped})
    published_seconds = alternate({"published": published}, rounds=2)["published"]
    ours_seconds = times["ours"] / options.images
    best = min(times[side] for side in ("looped", "spared", "side_by_side", "mapped")) / options.images
    found = [search_prepared(prepared, image, targets, key=jax.random.key(0), layout=layout) for image in images]
    whole = np.mean([_whole_steps(np.asarray(t.fit_loss <= t.bound)) for t in found])
    cost = _cost(prepared, images[0], targets, whole=float(whole))
    rate = matmul_rate()
    row = {
        "name": "masks-full",
        "seconds": ours_seconds,
        "ratio_published": published_seconds / ours_seconds,
        "ratio_best": best / ours_seconds,
        "floor_fraction": cost["flops"] * members * steps / rate / ours_seconds,
        "whole_steps": float(whole),
        "peak_bytes": cost["temporary_bytes"],
        "seconds_published": published_seconds,
        "seconds_torch_loop": times["looped"] / options.images,
        "seconds_torch_spared": times["spared"] / options.images,
        "seconds_torch_vmap": times["mapped"] / options.images,
        "seconds_torch_threads": times["side_by_side"] / options.images,
        "threads": threads(),
        "precision": f"float32 in PyTorch, {options.compute} in JAX",
        "matmul_gflops": rate / 1e9,
    }
    write_result(options.name, [row], setting=vars(options))


def _whole_steps(kept: Any) -> float:
    """The share of steps that ran whole: those from weights that break the bound, and each step after one of them."""
    import numpy as np

    before = np.concatenate([np.ones_like(kept[..., :1]), kept[..., :-1]], -1)
    spared = before.copy()
    spared[..., 1:] &= before[..., :-1]
    return 1 - float(spared.mean())


def _cost(prepared: Any, image: Any, targets: Any, *, whole: float) -> dict[str, float]:
    """Operations of a mean step, as the compiler counts them, and the temporary bytes of a whole one."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from quam_jax.core.compilation import compiler_options
    from quam_jax.core.passes import fit_loss_of
    from quam_jax.core.setup import Frozen, Setup, StepInputs, Target
    from quam_jax.core.step import begin, step

    frozen = Frozen(
        prepared.params,
        prepared.stats,
        jnp.asarray(np.asarray(image)[None]),
        prepared.fit,
        prepared.fit_labels,
        prepared.reference_loss,
        prepared.bound,
    )
    setup = Setup.of(prepared.network, prepared.procedure, np.asarray(image).shape[:-1])
    target = Target(targets.points[0], targets.labels[0, 0], targets.weights[0])
    state, inputs = begin(setup, frozen), StepInputs(jnp.asarray(0), jnp.float32(1), jnp.float32(1e-4), None)

    def compiled(function: Any, *arguments: Any) -> Any:
        return jax.jit(function, static_argnums=0, compiler_options=compiler_options()).lower(setup, frozen, *arguments).compile()

    full = compiled(step, target, state, inputs)
    parts = compiled(fit_loss_of, state, inputs), compiled(step, target, state, inputs._replace(fit_loss=jnp.float32(0)))
    operations = [float(part.cost_analysis()["flops"]) for part in (full, *parts)]
    return {
        "flops": whole * operations[0] + (1 - whole) * sum(operations[1:]),
        "temporary_bytes": int(full.memory_analysis().temp_size_in_bytes),
    }


if __name__ == "__main__":
    main()
