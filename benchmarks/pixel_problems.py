"""What is searched where every pixel is a target: in the head and in the last block, with the operations that it takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

FEATURES, FIT_POINTS, STEPS, FIT_PATCHES, CROP, BLOCK_STEPS = 64, 2048, 20, 4, 4, 6


class HeadProblem(NamedTuple):
    """All pixels of an image with random features, and one batch of fit images: what both sides search."""

    network: Any
    params: dict[str, Any]
    features: Any
    fit: Any
    targets: Any
    side: int

    @property
    def count(self) -> int:
        """Pixels, each a target."""
        return self.side**2

    def search(self, **changes: Any) -> Callable[[], Any]:
        """Our search, with changed settings."""
        import jax

        from quam_jax.config import SearchConfig
        from quam_jax.config.build import build_procedure
        from quam_jax.core.layout import heads
        from quam_jax.core.layout.choose import AUTO

        config = SearchConfig(space="head", members=1, steps=STEPS, fit_points=FIT_POINTS, learning_rate=1e-2, **changes)
        procedure = build_procedure(config, self.network)

        def call() -> Any:
            return heads.search_head_targets(
                self.network,
                self.params,
                self.features,
                self.fit,
                self.targets,
                shape=(self.side, self.side),
                procedure=procedure,
                steps=procedure.schedule.plan(1),
                key=jax.random.key(0),
                layout=AUTO,
            )

        return call


def head_searches(side: int) -> HeadProblem:
    """The problem of an image of `side` x `side` pixels."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from quam_jax.core.types import FitData
    from quam_jax.models.model import Network
    from quam_jax.targets.pixels import all_pixels, pixel_targets

    rng = np.random.default_rng(0)
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=FEATURES, is_batchnorm=False)
    head = {"Conv.weight": rng.normal(size=(1, 1, FEATURES, 2)) * 0.5, "Conv.bias": np.zeros(2)}
    params = {n: jnp.asarray(head.get(n, np.zeros(s)), jnp.float32) for n, s in network.shapes()[0].items()}
    features = jnp.asarray(np.maximum(rng.normal(size=(1, side, side, FEATURES)), 0), jnp.float32)
    fit_features = jnp.asarray(np.maximum(rng.normal(size=(1, 4, side, side, FEATURES)), 0), jnp.float32)
    weight = params["Conv.weight"][0, 0]
    probs = np.asarray(jax.nn.softmax(features[0] @ weight))
    fit_probs = np.asarray(jax.nn.softmax(fit_features @ weight))
    fit_labels = (rng.random(fit_probs.shape[:-1]) < fit_probs[..., 1]).astype(np.int32)
    targets = pixel_targets(all_pixels((side, side)), probs, members=1)
    return HeadProblem(network, params, features, FitData(fit_features, jnp.asarray(fit_labels)), targets, side)


def work(count: int, found: Any) -> float:
    """Operations of the iterative search: fit points by features, for one column a target (the margin form)."""
    return line_product(count) * (STEPS + 1 + STEPS * pulled(found))


def line_product(count: int) -> float:
    """Operations of one product of all heads with the fit points."""
    return 2.0 * count * FIT_POINTS * (FEATURES + 1)


def line_work(count: int) -> float:
    """Operations of direction and line search."""
    return line_product(count) + 2 * count * (FEATURES + 1) ** 2


def pulled(found: Any) -> float:
    """The part of the steps of a chunk in which some head breaks the bound, so that the gradient of the fit loss is needed."""
    import jax
    import numpy as np

    from quam_jax.core.layout import heads

    chunk = min(heads.LARGEST, heads.NUMBERS["cpu" if jax.default_backend() == "cpu" else "other"] // FIT_POINTS)
    rows = (found.fit_loss > found.bound).reshape(len(found.fit_loss), -1)
    return float(np.mean([rows[start : start + chunk].any(0).mean() for start in range(0, len(rows), chunk)]))


class BlockProblem(NamedTuple):
    """Pixels in the last block of AttUNet-16, searched on the patches that they see."""

    model: Any
    search: Callable[[], Any]
    count: int


def block_search(count: int, *, side: int = 96) -> BlockProblem:
    """At most `count` pixels of an image of `side` x `side`, none of them near the border."""
    import jax
    import numpy as np

    from quam_jax.config import SearchConfig
    from quam_jax.core.searching import search_prepared
    from quam_jax.models.model import Network, SegmentationModel
    from quam_jax.models.predict import fit_data, predict
    from quam_jax.models.prepare import prepare
    from quam_jax.targets.pixels import pixel_targets

    rng = np.random.default_rng(0)
    arguments = dict(in_channels=1, n_classes=2, channels=16, is_batchnorm=False, drop=0.0, decoder_drop=0.0)
    network = Network.create("att_unet", **arguments)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0, impl="rbg")))
    images = rng.normal(size=(1, 4, side, side, 1)).astype(np.float32)
    config = SearchConfig(space="last_block", members=1, steps=BLOCK_STEPS, fit_patches=FIT_PATCHES)
    prepared = prepare(model, fit_data(model, images, (images[..., 0] > 0.5).astype(np.int32)), config)
    inner = (np.arange(side * side).reshape(side, side)[8:-8, 8:-8]).ravel()
    chosen = inner[:: max(1, len(inner) // count)][:count]
    targets = pixel_targets(chosen, np.asarray(predict(model, images[0, 0])), members=1)

    def ours() -> None:
        jax.block_until_ready(search_prepared(prepared, images[0, 0], targets, key=jax.random.key(0)))

    return BlockProblem(model, ours, len(chosen))


def block_work(count: int) -> float:
    """Operations: a layer takes three products a step, the first one two, because its input has no gradient."""
    rings = ((2, 32, 2), (1, 16, 3), (0, 16, 3))
    points = [((CROP + 2 * ring) ** 2 * FIT_PATCHES + (1 + 2 * ring) ** 2) * i * products for ring, i, products in rings]
    return 2.0 * 9 * 16 * sum(points) * count * BLOCK_STEPS
