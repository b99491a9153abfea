"""Every optimiser that optax has a name for: it searches, or it is refused in one line before anything is computed."""

import jax
import numpy as np
import optax
import pytest

from quam_jax.config import Config, change, fields_of
from quam_jax.core.searching import search_prepared
from quam_jax.models.prepare import prepare
from tests.tiny import tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets

NAMES = sorted(name.removeprefix("scale_by_") for name in dir(optax) if name.startswith("scale_by_"))
PROMOTED = ("distance_over_gradients",)  # optax multiplies a scalar of one axis with gradients
USED = ("adam", "adamax", "adan", "amsgrad", "lion", "rms", "belief", "sign", "novograd", "radam", "yogi")


@pytest.mark.parametrize("name", ["sgd", *NAMES])
def test_an_optimiser_searches_or_is_refused_at_the_start(name: str) -> None:
    with tiny_network(), jax.numpy_rank_promotion("allow" if name in PROMOTED else "raise"):
        model = tiny_model()
        try:
            config = change(Config(), {"optimizer": name, "members": 1, "steps": 2, "learning_rate": 1e-3})
            prepared = prepare(model, tiny_fit(model), config.search)
        except ValueError as error:
            assert str(error).startswith("optimizer: expected ") and repr(name) in str(error) and "\n" not in str(error)
            assert name not in USED
            return
        targets = tiny_targets(members=1)
        found = search_prepared(prepared, tiny_image(), targets, key=jax.random.key(0))
        assert found.probs.shape[2] == 2 and np.isfinite(found.probs).all()


def test_the_names_are_those_of_optax() -> None:
    assert len(NAMES) > 15 and set(USED) <= set(NAMES)
    told = fields_of(Config())["optimizer"][1].metadata["help"].partition("scale_by_NAME: ")[2]
    assert set(told.removesuffix(", ...").split(", ")) <= set(NAMES)
