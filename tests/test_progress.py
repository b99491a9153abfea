"""What computations tell of themselves: only to who listens, in order, from every thread, and without a number changed."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.case.quantified import Quantified
from quam_jax.case.quantify import quantify, quantify_images
from quam_jax.case.shared import planned_model, whole_image_model
from quam_jax.config import Config, ExecutionConfig, SearchConfig, TargetConfig
from quam_jax.core.compilation import side_by_side
from quam_jax.core.progress import (
    CHOSEN,
    COMPILED,
    COMPILING,
    ENDED,
    IDLE,
    SEARCHING,
    UNITS,
    Event,
    about_case,
    carried,
    counted,
    is_heard,
    listening,
    phases,
    tell,
)
from quam_jax.data.patches import lay_patches
from quam_jax.data.plans import Plan
from quam_jax.models.coding import Coding
from quam_jax.models.predict import fit_data
from quam_jax.runs.stages import run_stages
from tests.planned import SMALL, model_of, quantify_file, scan, write
from tests.small_run import disc, little_model, picture
from tests.tiny import NO_VIEWS


class Heard(list[Event]):
    """Everything that was told, compilations apart, from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.compilations: list[str] = []

    def __call__(self, event: Event) -> None:
        with self.lock:
            if event.phase in (COMPILING, COMPILED):
                self.compilations.append(event.phase)
            else:
                self.append(event)

    def of(self, unit: str) -> list[tuple[int, int]]:
        return [(event.number, event.total) for event in self if event.unit == unit]


def test_nobody_hears_without_listening_and_the_innermost_listener_hears() -> None:
    outer, inner = Heard(), Heard()
    tell("nobody")
    assert not is_heard()
    with listening(outer):
        tell("before")
        with listening(inner):
            tell("inside", "step", 2, 3)
        assert is_heard()
        tell("after")
    tell("nobody")
    assert [event.phase for event in outer] == ["before", "after"]
    assert inner == [Event("inside", "step", 2, 3)]


def test_a_case_a_phase_and_a_part_end_with_their_context() -> None:
    heard = Heard()
    with listening(heard):
        with about_case("B07"), phases():
            tell("reading")
        tell("merging")
        with counted(done=10, total=30):
            tell(ENDED, number=2, total=5)
            tell("reading", "case", 2, 5)
        with pytest.raises(ValueError), phases():
            raise ValueError
    with counted(done=1, total=2):
        tell(ENDED)
    assert [(event.phase, event.case) for event in heard[:3]] == [("reading", "B07"), (IDLE, "B07"), ("merging", "")]
    assert [event[1:4] for event in heard[3:5]] == [("", 12, 30), ("case", 2, 5)]
    assert heard[5].phase == IDLE


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_a_thread_hears_where_it_carries_the_context() -> None:
    heard = Heard()
    with listening(heard), about_case("a"):
        in_thread(lambda: tell("lost"))
        in_thread(carried(lambda: tell("carried")))
    assert [(event.phase, event.case) for event in heard] == [("carried", "a")]


def test_members_side_by_side_and_the_stages_of_a_run_carry_it() -> None:
    heard, threads = Heard(), set()

    def step(item: int) -> int:
        threads.add(threading.get_ident())
        tell("step", number=item)
        return item

    with listening(heard):
        assert list(side_by_side(step, range(4))) == [0, 1, 2, 3]
        assert sorted(event.number for event in heard) == [0, 1, 2, 3] and threads - {threading.get_ident()}
        heard.clear()
        run_stages(
            iter(range(3)),
            read=lambda item: [tell("read"), item][1],
            lanes=[lambda items: [tell("lane"), *items][1:], lambda items: [tell("lane"), *items][1:]],
            write=lambda item: tell("written"),
        )
    assert sorted(event.phase for event in heard) == ["lane"] * 3 + ["read"] * 3 + ["written"] * 3


def test_compilations_are_told_in_pairs_while_they_last() -> None:
    heard = Heard()
    fresh = jax.jit(lambda x: jnp.sin(x) + time.perf_counter_ns() % 1)
    with listening(heard):
        fresh(1.0)
        first = list(heard.compilations)
        fresh(2.0)
    assert first.count(COMPILING) == first.count(COMPILED) >= 1 and first[0] == COMPILING
    assert heard.compilations == first  # the second call compiles nothing


MODEL = little_model()
IMAGE = (picture(0).astype(np.float32)[..., None] - 90) / 50
FIT = fit_data(MODEL, IMAGE[None, None], disc(0).astype(np.int32)[None, None])


def heard_of(config: Config, image: np.ndarray = IMAGE) -> tuple[Heard, Quantified]:
    heard = Heard()
    with listening(heard):
        return heard, quantify(MODEL, image, FIT, config=config, volume=image.ndim > 3)


def test_a_search_tells_its_steps_in_order_and_no_number_changes() -> None:
    config = Config(search=SearchConfig(steps=3), execution=ExecutionConfig(member_plan="loop", step_plan="loop", chunk=1))
    heard, found = heard_of(config)
    assert heard.of("chunk") == [(1, 2), (2, 2)]
    assert heard.of("step") == [(1, 3), (2, 3), (3, 3)] * 2
    told = [event for event in heard if event.phase != CHOSEN]  # once a process
    assert [event.phase for event in told[:2]] == ["trying views on the fit data", "predicting"]
    assert {event.phase for event in told[2:]} == {SEARCHING}
    units = [event.unit for event in told[2:7]]
    assert units == ["patch", "fold", "chunk", "step", "step"] and [u for u in UNITS if u in units] == units[:4]
    silent = quantify(MODEL, IMAGE, FIT, config=config)
    for name, values in found.maps.items():
        assert np.array_equal(values, silent.maps[name])


def test_the_slices_of_a_volume_and_chunks_of_heads_are_counted() -> None:
    volume = np.stack([IMAGE, IMAGE, IMAGE], 2)
    heard, _ = heard_of(Config(samples=NO_VIEWS, search=SearchConfig(steps=1)), volume)
    assert heard.of("slice") == [(1, 3), (2, 3), (3, 3)]
    targets = TargetConfig(target="pixel", pixels="uncertain", pixel_count=20)
    heard, _ = heard_of(
        Config(targets=targets, search=SearchConfig(space="head", members=1, steps=1), execution=ExecutionConfig(chunk=8))
    )
    assert heard.of("chunk") == [(1, 3), (2, 3), (3, 3)]
    shared = whole_image_model(MODEL, FIT, SearchConfig(steps=1))
    heard = Heard()
    with listening(heard):
        quantify_images(shared, [IMAGE, IMAGE], config=Config(samples=NO_VIEWS, search=SearchConfig(steps=1)))
    assert heard.of("slice") == []  # images are cases


def test_the_patches_and_folds_of_a_volume_are_counted(tmp_path: Path) -> None:
    models = [model_of(seed=0), model_of(seed=1)]
    fit_image, fit_labels = scan((8, 8, 8), seed=1)
    plan = Plan.of(models[0].manifest, where="model")
    shared = planned_model(
        models,
        (fit_image[None, None, ..., None] - 130) / 40,
        fit_labels[None, None].astype(np.int32),
        plan=plan,
        coding=Coding.of(plan, where="model"),
        search=SMALL.search,
    )
    path = write(tmp_path / "v.nii.gz", scan((14, 8, 12))[0], np.eye(4))
    count = len(lay_patches((12, 8, 14), plan.patch).starts)
    heard = Heard()
    with listening(heard):
        quantify_file(shared, path, SMALL)
    predicted = [(event.number, event.total) for event in heard if event.phase == "predicting" and event.unit == "patch"]
    searched = [(event.number, event.total) for event in heard if event.phase == SEARCHING and event.unit == "patch"]
    assert count > 3 and predicted[-1] == (count, count) and predicted == sorted(predicted)
    assert searched == [(n, count) for n in range(1, count + 1)]
    assert set(heard.of("fold")) == {(1, 2), (2, 2)} and len(heard.of("fold")) % 2 == 0


def test_telling_costs_little_where_nobody_listens() -> None:
    started = time.thread_time()
    for s in range(20_000):
        tell(SEARCHING, "step", s + 1, 20_000)
    assert time.thread_time() - started < 1.0  # 50 microseconds each, on the slowest of machines under checked signatures


def test_fit_data_are_told_of(tmp_path: Path) -> None:
    from quam_jax.case.fit import read_fit_images
    from quam_jax.config import FitConfig
    from quam_jax.data.datasets import find_cases
    from quam_jax.models.description import preprocessing_of
    from tests.small_run import write_cases

    write_cases(tmp_path, ["f1", "f2"], raters=1)
    heard = Heard()
    with listening(heard):
        read_fit_images(
            find_cases(tmp_path / "images", tmp_path / "masks"),
            tmp_path,
            model=MODEL,
            preprocessing=preprocessing_of(MODEL),
            settings=FitConfig(),
        )
    assert heard == [Event("reading fit data", "case", 1, 2), Event("reading fit data", "case", 2, 2)]
