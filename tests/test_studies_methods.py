"""The methods of a study: rows in order, grids, ranks of several maps."""

import json

import jax
import numpy as np

from benchmarks import study_plans
from quam_jax.baselines.method import Method, MethodOptions, Outcome, Subject
from quam_jax.config import Config, change
from quam_jax.studies.cases import StudyCase
from quam_jax.studies.methods import memo_key, methods, rank_mean
from tests.small_run import little_model
from tests.tiny import tiny_image, tiny_model, tiny_network


def test_ranks_of_several_maps_are_averaged_and_computed_once() -> None:
    calls = []

    def part(name: str, values: list[float]) -> Method:
        def run(image: np.ndarray, key: object) -> Outcome:
            calls.append(name)
            return Outcome({"total": np.array([values])}, None, None, None, 1, 0)

        return Method(name, lambda subject, settings: run)

    image, key = np.zeros((1, 3, 1), np.float32), jax.random.key(0)
    both = rank_mean("both", [part("a", [0.1, 0.2, 0.9]), part("b", [5.0, 7.0, 7.0])])
    subject = Subject(None, [], [], [], {}, 0, {})  # type: ignore[arg-type]
    run = both.start(subject, {})
    assert run is not None and both.parts == ("a", "b")
    for _ in range(2):  # ranks 1 2 3 and 1 2.5 2.5, over 3 pixels
        np.testing.assert_allclose(run(image, key).maps["total"], [[1 / 3, 4.5 / 6, 5.5 / 6]])
    assert calls == ["a", "b"]
    assert memo_key("a", {}, image, key) != memo_key("a", {}, image, jax.random.key(1))


def test_grids_begin_with_the_default_and_hold_nothing_twice() -> None:
    default = Config()
    for name, method in methods(inject_dropout=0.2).items():
        assert len({json.dumps(row) for row in method.grid}) == len(method.grid), name
    first = methods()["quam_tuned"].grid[0]
    assert change(default, first) == default and set(first) == {"radius", "learning_rate", "slack"}
    assert all(
        methods()[name].grid[0] == {"slack": default.search.slack}
        for name in ("random_directions", "quam_regions", "quam_pixels")
    )


def test_rows_stand_in_the_order_of_the_tables() -> None:
    known = methods(inject_dropout=0.2, configs={"own": Config()})
    first = "softmax temperature tta ensemble mc_dropout laplace evidential prob_unet"
    searches = "quam quam_thorough quam_fast quam_blur quam_plain quam_tuned quam_published quam_regions quam_pixels"
    controls = (
        "boundary blur blurred_mask random_directions tta_ensemble tta_blur random_views random_views_pooled mc_dropout_views "
        "quam_no_search quam_thorough_no_search quam_published_no_search"
    )
    ranks = "own tta_quam_ranks tta_random_ranks raters_halves"
    assert list(known) == f"{first} {searches} {controls} {ranks}".split()
    assert [n for n, row in known.items() if row.control] == [*controls.split(), "tta_random_ranks", "raters_halves"]
    assert {name for name, method in known.items() if method.trained} == {"evidential", "prob_unet"}
    assert {name for name, method in known.items() if method.ensemble} == {"ensemble", "tta_ensemble"}
    assert [row["inject"] for row in known["mc_dropout"].grid] == [0.2, 0.1, 0.3, 0.5, 0.7]
    assert methods()["mc_dropout"].grid == ({},)
    assert [row["width"] for row in known["blur"].grid] == [1.0, 0.25, 0.5, 0.75, 1.5, 2.0, 3.0]
    assert [row["slack"] for row in known["random_directions"].grid] == [1.0, 0.2, 5.0, 20.0]


def test_the_twin_without_a_search_is_test_time_augmentation() -> None:
    """Its only step looks through all views, or the control would have less than what the default is compared with."""
    rng, key = np.random.default_rng(0), jax.random.key(0)
    with tiny_network():
        model, image = tiny_model(), tiny_image(size=(8, 8))
        known = StudyCase(None, image, rng.integers(0, 2, (1, 8, 8)), (1.0, 1.0), image, "")  # type: ignore[arg-type]  # nobody asks
        subject, rows = Subject(model, [known], [], [model], {}, 0), methods()
        own, tta = rows["quam_no_search"].start(subject, {}), rows["tta"].start(subject, {"views": "standard"})
        assert own is not None and tta is not None
        for name, values in own(image, key).maps.items():
            np.testing.assert_allclose(values, tta(image, key).maps[name], rtol=1e-3, atol=1e-5)


def test_only_networks_with_dropout_serve_mc_dropout_unless_it_is_injected() -> None:
    serves = methods()["mc_dropout"].serves
    assert not serves(little_model(), MethodOptions()) and serves(little_model(), MethodOptions(inject_dropout=0.1))
    assert methods()["softmax"].serves(little_model(), MethodOptions())


def test_studies_name_rows_and_networks_that_exist() -> None:
    known = methods(inject_dropout=0.3)
    for name, study in study_plans.STUDIES.items():
        words = study_plans.arguments_of(name, study)
        rows = words[words.index("--methods") + 1].split(",")
        assert set(rows) <= set(known) and len(set(rows)) == len(rows), name
        assert all(set(known[row].parts) <= set(rows) for row in rows), name
        assert {row for row in rows if known[row].trained} == {kind for kind, _ in study.kinds}, name
        assert {study.networks, *(networks for _, networks in study.kinds)} <= set(study_plans.TRAININGS), name
    assert {networks for networks, _ in study_plans.SHARES.values()} <= set(study_plans.TRAININGS)
