"""Searches whose way to run is chosen by measurement: numbers, memory and budget stay as they are."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config import SearchConfig
from quam_jax.core.compilation import keep_choices
from quam_jax.core.layout import measuring, members
from quam_jax.core.layout.choose import AUTO, Budget, Layout, choose_layout
from quam_jax.core.layout.measuring import Candidate, Choice, candidates
from quam_jax.core.network import weight_products
from quam_jax.core.searching import search_images, search_prepared
from quam_jax.core.types import Targets
from quam_jax.models.prepare import prepare
from quam_jax.networks.convolution import convolution
from tests.member_searches import EVAL, assert_equal
from tests.tiny import tiny_fit, tiny_image, tiny_model, tiny_targets

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """No choice of another test, here or kept."""
    for known in (members._PLANS, members._CHOICES):
        known.clear()
    keep_choices(None)
    yield
    keep_choices(None)
    for known in (members._PLANS, members._CHOICES):
        known.clear()


def timed(monkeypatch: pytest.MonkeyPatch, best: int) -> list[str]:
    """Every candidate of a search is as fast as another, but for one; the names that were timed."""
    seen: list[str] = []
    original = measuring.choose

    def choose(ways: Any, time_of: Any, **settings: Any) -> Choice:
        def made_up(way: Candidate) -> float:
            seen.append(way.name)
            fits = math.isfinite(time_of(way))
            return (0.5 if ways.index(way) == best else 1.0) if fits else math.inf

        return original(ways, made_up, **{**settings, "work": 1e12})

    monkeypatch.setattr(members, "choose", choose)
    return seen


def found(layout: Layout = AUTO, config: SearchConfig = EVAL, targets: Targets | None = None) -> Any:
    model, targets = tiny_model(), targets or tiny_targets()
    prepared = prepare(model, tiny_fit(model), config)
    (trajectory,) = search_images(prepared, [tiny_image()], [targets], keys=[jax.random.key(0)], layout=layout)
    return jax.tree.map(np.asarray, trajectory)


def test_on_a_cpu_the_choice_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = found()
    assert members.plans_made()[-1].choice.how == "rule"  # type: ignore[union-attr]
    for best, chunk in ((0, 2), (1, 1)):
        members._PLANS.clear()
        members._CHOICES.clear()
        seen = timed(monkeypatch, best)
        for a, b in zip(jax.tree.leaves(found()), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)
        plan = members.plans_made()[-1]
        assert plan.way.chunk == chunk and len(seen) == 2 + 2 * best  # a winner is timed once more, and so is the rule
        assert plan.choice is not None and plan.choice.told()["layout_by"] == "measured"


def test_what_was_timed_counts_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found()
    one = members.plans_made()[-1].predicted
    members._PLANS.clear()
    members._CHOICES.clear()
    timed(monkeypatch, 1)
    found()
    assert members.plans_made()[-1].predicted == one  # that of two members in flight, though one is


def refuse_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plan of mapped members fits."""
    original = members.plan_search

    def refusing(setup: Any, frozen: Any, layout: Layout, **settings: Any) -> Any:
        if layout.members == "vmap":
            raise ValueError("memory: too much")
        return original(setup, frozen, layout, **settings)

    monkeypatch.setattr(members, "plan_search", refusing)


def test_what_does_not_fit_the_budget_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator; the fastest candidate is refused by its plan."""
    rule = choose_layout(Layout(), members=3, backend="gpu")
    monkeypatch.setattr(members, "candidates", lambda asked, layout, members: [Candidate(layout), Candidate(rule)])
    refuse_mapped(monkeypatch)
    timed(monkeypatch, 1)
    found(Layout(memory=Budget(2**40, 0)))
    plan = members.plans_made()[-1]
    assert plan.layout.members == "loop" and plan.choice is not None and list(plan.choice.seconds.values()) == [1.0]


def test_a_candidate_of_an_accelerator_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = found()
    ways = candidates(Layout(), choose_layout(Layout(), members=3, backend="gpu"), members=3, backend="gpu")
    monkeypatch.setattr(members, "candidates", lambda asked, layout, members: ways)
    (best,) = (n for n, way in enumerate(ways) if way.layout.chunk == 0 and way.layout.steps == "scan" and way.products)
    members._PLANS.clear()
    members._CHOICES.clear()
    monkeypatch.setattr(members, "choose", lambda some, time_of, **_: Choice(some[best], "measured", {}))
    assert_equal(found(), expected)
    plan = members.plans_made()[-1]
    assert plan.layout == ways[best].layout and plan.way.setup.products


def test_a_kept_choice_that_no_longer_fits_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, rule = found(), Candidate(choose_layout(Layout(), members=3, backend="gpu"))
    members._PLANS.clear()
    members._CHOICES.clear()
    monkeypatch.setattr(members, "choose", lambda some, time_of, **_: Choice(rule, "kept", {}))
    refuse_mapped(monkeypatch)
    assert_equal(found(), expected)
    assert members.plans_made()[-1].choice == Choice(Candidate(members.plans_made()[-1].layout), "rule", {})


@pytest.mark.parametrize("rank, stride", [*itertools.product((2, 3), (1, 2))])
def test_weight_gradients_as_products_are_those_of_plain_convolutions(
    monkeypatch: pytest.MonkeyPatch, rank: int, stride: int
) -> None:
    """On an accelerator both are there, also under mapped weights."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, *(6,) * rank, 3)), rng.normal(size=(4, *(3,) * rank, 3, 5))
    settings = dict(stride=(stride,) * rank, padding=(1,) * rank, dilation=(1,) * rank)

    def gradient(products: bool) -> Any:
        def loss(weight: Any) -> Any:
            with weight_products(products):
                return jnp.sum(jnp.sin(convolution(jnp.asarray(x, jnp.float32), weight, **settings)))  # type: ignore[arg-type]

        return jax.jit(jax.vmap(jax.grad(loss))), jnp.asarray(w, jnp.float32)

    plain, weights = gradient(False)
    products, _ = gradient(True)
    np.testing.assert_allclose(products(weights), plain(weights), rtol=1e-4, atol=1e-4)
    texts = [function.lower(weights).as_text() for function in (plain, products)]
    assert ["dot_general" in text for text in texts] == [False, True]


def test_search_prepared_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    seen = timed(monkeypatch, 1)
    search_prepared(prepare(model, tiny_fit(model), EVAL), tiny_image(), tiny_targets(), key=jax.random.key(0))
    assert len(seen) == 4


def test_the_budget_is_no_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    monkeypatch.setattr(members, "choose", lambda ways, time_of, *, key, **_: (keys.append(key), Choice(ways[0], "rule", {}))[1])
    for total in (2**40, 2**41):
        found(Layout(memory=Budget(total, 0)))
    found(config=dataclasses.replace(EVAL, members=2), targets=tiny_targets(members=2))
    assert keys[0] == keys[1] != keys[2]
