"""What a run says to expect: stored figures, the arithmetic of the probe, and the words."""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quam_jax.case.crops import WholeFit
from quam_jax.case.fit import Known
from quam_jax.case.own_fit import look_at_fit
from quam_jax.case.shared import planned_model
from quam_jax.case.views import choose_look
from quam_jax.config import Config, ExecutionConfig, FitConfig, SampleConfig, SearchConfig, TargetConfig
from quam_jax.core.progress import ENDED, EXPECTED, GIVEN, IDLE, SEARCHING, Event, listening
from quam_jax.core.schedule import Slack
from quam_jax.data.datasets import Case
from quam_jax.data.figures import Figure, Figures
from quam_jax.data.patches import lay_patches
from quam_jax.data.plans import Plan
from quam_jax.models.coding import Coding
from quam_jax.models.loading import load_models
from quam_jax.runs import expectation
from quam_jax.runs.expectation import BACKWARD, BROKEN, TAIL, Expectation, Forecast, count_passes, probe_forward
from quam_jax.runs.part import Part
from quam_jax.runs.planning import plan_run
from quam_jax.runs.quantifier import Quantifier, find_quantifier
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.command_line import call
from tests.planned import VIEWED, model_of, scan, write
from tests.small_run import little_model, picture, prepare_folders


def test_what_to_expect_in_words() -> None:
    ten = Expectation(10, 0, (1024, 811), 45, 450, 4, "from one forward pass")
    assert str(ten) == (
        "10 cases of 1024x811 (as the first is), about 45 s each, about 8 min in all; with --space head about 4 s each "
        "(from one forward pass)"
    )
    one = Expectation(1, 0, (512, 512, 128), 90, 90, None, "as measured here before")
    assert str(one) == "1 case of 512x512x128, about 90 s each, about 90 s in all (as measured here before)"
    assert str(Expectation(1200, 30, (8, 8))) == (
        "1,200 cases of 8x8 (as the first is), 30 of them there from before; how long they take shows after the first"
    )
    assert str(Expectation(2, 2)) == "2 cases, 2 of them there from before"


def config(**search: Any) -> Config:
    return Config(search=SearchConfig(**{"members": 2, "steps": 6, **search}))


def test_passes_by_hand() -> None:
    """Two members of six steps with a fit batch as large as two images: every step, the last record and the prediction."""
    image, fit = 1 + BACKWARD, 2 * (1 + BROKEN * BACKWARD)  # a CPU spares feasible models the fit gradient
    assert count_passes(config(), batches=1, fit_share=2.0) == pytest.approx(1 + 2 * (6 * (image + fit) + 1 + 2))
    whole = 2 * (1 + BACKWARD)
    assert count_passes(config(penalty="linear"), batches=1, fit_share=2.0) == pytest.approx(1 + 2 * (6 * (image + whole) + 3))
    assert count_passes(config(space="input:0.1"), batches=1, fit_share=2.0) == pytest.approx(1 + 2 * (6 * image + 1))
    tail = TAIL["head"] * 2 * (6 * (image + fit) + 3)
    assert count_passes(config(space="head"), batches=1, fit_share=2.0) == pytest.approx(2 + tail)
    published = dataclasses.replace(Config.published(), search=SearchConfig.published(batch_stride=1))
    # three epochs of four batches, each step with a pass for its record
    assert count_passes(published, batches=4, fit_share=1.0) == pytest.approx(1 + 2 * 12 * (2 * image + 1))
    assert count_passes(Config(targets=TargetConfig(target="pixel")), batches=1, fit_share=2.0) is None
    mixed = dataclasses.replace(config(), samples=SampleConfig(random_directions=3))
    one = count_passes(mixed, batches=1, fit_share=2.0, views=8)
    assert one == pytest.approx(1 + 2 * (6 * (image + fit) + 3) + 8 * (1 + 2 * 3) + 2 * 0.5 * 2 * 6)
    tail = count_passes(config(space="head"), batches=1, fit_share=2.0, views=8)
    assert tail == pytest.approx(2 + 8 + TAIL["head"] * (2 * (6 * (image + fit) + 3) + 8 + 2 * 0.5 * 2 * 6))
    members = [count_passes(config(members=m), batches=1, fit_share=1.0) or 0 for m in (1, 2, 3)]
    assert members[2] - members[1] == pytest.approx(members[1] - members[0])


def test_the_probe_measures_a_corner_of_what_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    clock = [0.0]

    def slow(model: object, image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        clock[0] += 0.05 if len(seen) > 1 else 0.5  # the first call compiles
        return image

    monkeypatch.setattr(expectation, "predict", slow)
    monkeypatch.setattr(expectation, "PROBED", 400)
    monkeypatch.setattr(expectation.time, "perf_counter", lambda: clock[0])
    seconds = probe_forward(little_model(), np.zeros((40, 40, 1), np.float32))
    assert set(seen) == {(20, 20, 1)} and seconds == pytest.approx(4 * 0.05)
    seen.clear()
    probe_forward(little_model(), np.zeros((16, 25, 1), np.float32))
    assert set(seen) == {(16, 25, 1)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("expected")
    found = prepare_folders(root, model=little_model())
    for n, name in enumerate("cde"):
        Image.fromarray(picture(n + 2)).save(found["images"] / f"{name}.png")
    return found


@pytest.fixture
def request_of(folders: dict[str, Path], tmp_path: Path) -> RunRequest:
    paths = {name: path for name, path in folders.items() if name != "masks"}
    return RunRequest(out=tmp_path / "out", config=config(members=1, steps=2), **paths)


def meet(request: RunRequest, figures: Figures) -> Forecast:
    return Forecast(find_quantifier(load_models(request.model, arch=None), request), request, figures)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Forward passes that take two seconds each, by a clock of their own; the calls are counted."""
    calls: list[float] = []

    def probe(model: object, image: np.ndarray) -> float:
        calls.append(image.size)
        return 2.0

    monkeypatch.setattr(expectation, "probe_forward", probe)
    yield calls


def test_without_figures_a_probe_tells_and_lanes_and_parts_share(
    request_of: RunRequest, tmp_path: Path, probed: list[float]
) -> None:
    forecast = meet(request_of, Figures(tmp_path / "figures.json"))
    batch, rows, columns = forecast.quantifier.known.images.shape[1:4]
    share = batch * rows * columns / (21 * 26)  # the fit batch is padded
    passes = count_passes(request_of.config, batches=1, fit_share=share, views=8)  # sides differ: no quarter turns
    assert passes is not None and share > 3
    found = forecast.expect(lanes=1)
    assert (found.cases, found.done, found.size, found.source) == (5, 0, (26, 21), "from one forward pass")
    assert (found.each, found.whole) == (pytest.approx(2 * passes), pytest.approx(10 * passes)) and len(probed) == 1
    assert forecast.expect(lanes=2).whole == pytest.approx(3 * 2 * passes)  # three rounds
    part = meet(dataclasses.replace(request_of, part=Part(2, 2)), Figures(tmp_path / "none")).expect(lanes=1)
    assert part.cases == 2 and part.whole == pytest.approx(2 * 2 * passes)
    head = count_passes(config(members=1, steps=2, space="head"), batches=1, fit_share=share, views=8)
    assert head is not None and found.whole is not None and found.whole > expectation.LONG
    whole = WholeFit((list,) * 7, (2 * 21 * 26,) * 7, (1.0,) * 7, Slack())
    checked = forecast.quantifier._replace(shared=forecast.quantifier.shared._replace(whole_fit=whole))
    checking = Forecast(checked, request_of, None).expect(lanes=1)
    assert checking.each == pytest.approx(2 * (passes + 14))  # one member on seven whole fit images, twice as large
    assert found.head == pytest.approx(2 * head) and "with --space head about" in str(found)


def test_a_volume_takes_as_long_as_its_patches(tmp_path: Path, probed: list[float]) -> None:
    models = [model_of(seed=0), model_of(seed=1)]
    plan = Plan.of(models[0].manifest, where="model")
    coding = Coding.of(plan, where="model")
    image, labels = scan((8, 8, 8), seed=1)
    images, wanted = np.stack([image, image])[None, ..., None] / 100, np.stack([labels, labels])[None].astype(np.int32)
    shared = planned_model(models, images, wanted, plan=plan, coding=coding, search=VIEWED.search)
    case = Case("v", write(tmp_path / "v.nii.gz", scan((14, 8, 12))[0], np.diag([2.0, 1, 1, 1])), {})
    own = look_at_fit(shared.folds[0].searched, images, wanted, coding=coding)
    quantifier = Quantifier([case], shared, Known(images, wanted, ["a"], []), VIEWED, None, own)
    request = RunRequest(*[tmp_path] * 3, fit_images=tmp_path, fit_masks=tmp_path, config=VIEWED)
    found = Forecast(quantifier, dataclasses.replace(request, out=tmp_path / "out"), None).expect(lanes=1)
    patches = len(lay_patches((12, 8, 28), plan.patch).starts)  # voxels of 2 mm are two of the plan's
    looked = len(choose_look(shared, plan.patch, config=VIEWED).views)
    passes = count_passes(VIEWED, batches=1, fit_share=2.0, views=looked)
    assert passes is not None and patches > 8 and looked > 4
    # two mirrorings in place of the one prediction, in each of two folds
    assert found.each == pytest.approx(2.0 * (passes + 1) * patches * 2)
    assert (found.size, found.source) == ((14, 8, 12), "at most, from one forward pass") and probed == [8**3]


def test_figures_win_over_the_probe_and_another_size_is_scaled(
    request_of: RunRequest, tmp_path: Path, probed: list[float]
) -> None:
    figures = Figures(tmp_path / "figures.json")
    forecast = meet(request_of, figures)
    figures.add([Figure(forecast.work, (42, 26), 8.0, 4)])
    found = forecast.expect(lanes=1)
    assert (found.each, found.whole, found.source) == (4.0, 20.0, "from another size, measured here before")
    assert found.head is None  # not worth a word in so short a run
    forecast.took((21, 26), 90.0)  # compiles
    for seconds in (3.0, 9.0, 5.0):
        forecast.took((21, 26), seconds)
    forecast.keep()
    assert figures.seconds(forecast.work, (21, 26)) == (5.0, True)
    again = forecast.expect(lanes=1)
    assert (again.each, again.source) == (5.0, "as measured here before") and not probed
    alone = Forecast(forecast.quantifier, request_of, figures)
    alone.took((21, 26), 90.0)  # one case, with its compilation, is no better figure
    alone.took((9, 9), 30.0)  # but better than none
    alone.keep()
    assert figures.seconds(forecast.work, (21, 26)) == (5.0, True) and figures.seconds(forecast.work, (9, 9)) == (30.0, True)


def test_what_the_time_of_a_case_does_not_depend_on(request_of: RunRequest, tmp_path: Path) -> None:
    none = Figures(tmp_path / "none")
    work = meet(request_of, none).work
    for same in (
        dataclasses.replace(request_of.config, seed=5),
        dataclasses.replace(request_of.config, execution=ExecutionConfig(chunk=1)),
    ):
        assert meet(dataclasses.replace(request_of, config=same), none).work == work
    for other in (config(members=1, steps=3), dataclasses.replace(request_of.config, fit=FitConfig(fit_cases=2))):
        assert meet(dataclasses.replace(request_of, config=other), none).work != work
    assert f"{len(os.sched_getaffinity(0))} cores" in work.machine and "cpu" in work.machine


def test_cases_that_are_there_are_not_expected_again(request_of: RunRequest, tmp_path: Path, probed: list[float]) -> None:
    request_of.out.mkdir()
    for name in "abcd":
        (request_of.out / f"{name}.json").write_text("{}")
    forecast = meet(request_of, Figures(tmp_path / "none"))
    found = forecast.expect(lanes=1)
    assert (found.cases, found.done) == (5, 4) and found.whole == found.each
    (request_of.out / "e.json").write_text("{}")
    probed.clear()
    assert forecast.expect(lanes=1) == Expectation(5, 5) and not probed


def test_what_cannot_be_read_or_probed_leaves_it_open(
    request_of: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast = meet(request_of, Figures(tmp_path / "none"))
    (broken := tmp_path / "a.png").write_bytes(b"no picture")
    cases = forecast.quantifier.cases
    wrong = forecast.quantifier._replace(cases=[cases[0]._replace(image=broken), *cases[1:]])
    assert Forecast(wrong, request_of, Figures(tmp_path / "none")).expect(lanes=1) == Expectation(5, 0)

    def fails(*_: object) -> float:
        raise MemoryError

    monkeypatch.setattr(expectation, "probe_forward", fails)
    found = forecast.expect(lanes=1)
    assert found.each is None and str(found).endswith("; how long they take shows after the first")


def told_by(request: RunRequest, figures: Figures | None) -> list[Event]:
    heard: list[Event] = []
    with listening(heard.append):
        run(request, figures=figures)
    return heard


def test_a_run_tells_what_to_expect_then_its_phases_and_cases_and_keeps_its_figure(
    request_of: RunRequest, tmp_path: Path
) -> None:
    figures = Figures(tmp_path / "figures.json")
    heard = told_by(request_of, figures)
    (expected,) = [event for event in heard if event.phase == EXPECTED]
    assert re.match(r"5 cases of 26x21 \(as the first is\), about [\d.]+ m?s each", expected.note) and expected.total == 5
    order = [event.phase for event in heard]
    firsts = ("loading the model", "reading fit data", "preparing the search", EXPECTED, SEARCHING, ENDED)
    assert [order.index(phase) for phase in firsts] == sorted(order.index(phase) for phase in firsts)
    ended = [event for event in heard if event.phase == ENDED]
    assert [(event.case, event.number, event.total) for event in ended] == [(name, n, 5) for n, name in enumerate("abcde", 1)]
    assert all(re.fullmatch(r"[\d.]+ s", event.note) for event in ended)
    assert {event.case for event in heard if event.unit == "step"} == set("abcde")
    assert {event.phase for event in heard if event.case == "c"} >= {"reading", "scoring", "writing", IDLE}
    assert order[-1] == "writing the report" and "merging" in order
    (figure,) = figures.read()
    assert (figure.shape, figure.cases) == ((21, 26), 4) and 0 < figure.seconds < 60
    again = told_by(request_of, figures)
    assert [event.note for event in again if event.phase == ENDED] == [GIVEN] * 5
    assert SEARCHING not in [event.phase for event in again]


def test_without_figures_or_a_listener_nothing_is_probed(request_of: RunRequest, tmp_path: Path, probed: list[float]) -> None:
    assert EXPECTED not in [event.phase for event in told_by(request_of, None)]
    run(dataclasses.replace(request_of, out=tmp_path / "silent"), figures=Figures(tmp_path / "figures.json"))
    assert not probed and len(Figures(tmp_path / "figures.json").read()) == 1


def test_a_plan_counts_over_its_passes_and_leaves_a_figure(request_of: RunRequest, tmp_path: Path) -> None:
    figures, heard = Figures(tmp_path / "figures.json"), list[Event]()
    request = dataclasses.replace(request_of, config=config(members=1, steps=5))
    with listening(heard.append):
        planned = plan_run(request, cases=100, probe_cases=2, figures=figures)
    (expected,) = [event for event in heard if event.phase == EXPECTED]
    count = planned.measured.cases
    assert expected.note == f"{count} of 5 cases, measured in 4 passes of few steps" and expected.total == 4 * count
    ended = [(event.number, event.total) for event in heard if event.phase == ENDED]
    assert ended == [(n, 4 * count) for n in range(1, 4 * count + 1)]
    (figure,) = figures.read()
    assert figure.cases == count and figure.work == meet(request, figures).work


def test_the_command_says_it_on_stderr_alone_and_quiet_says_nothing(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quam_jax.cli.run.figures_file", lambda: tmp_path / "figures.json")
    monkeypatch.setattr("quam_jax.cli.display.QUICK", 0.0)
    paths = [part for name, path in folders.items() for part in (f"--{name.replace('_', '-')}", path)]
    options = ("run", *paths, "--steps", 1, "--members", 1)
    code, out, err = call(monkeypatch, capsys, *options, "--out", tmp_path / "one")
    own, first, *others = err.splitlines()
    assert (
        code == 0
        and own.startswith("note: the network does not explain its own fit data: ")
        and first.startswith("5 cases of 26x21 (as the first is), about ")
    )
    assert [line for line in others if line.startswith("[5/5] e: ")]
    assert [line for line in others if not line.startswith(("[", "note: ", "a: ", "compiling", "search: 1 of 1 members"))] == []
    quiet_code, quiet_out, quiet_err = call(monkeypatch, capsys, "-q", *options, "--out", tmp_path / "two")
    assert quiet_code == 0 and quiet_err == ""
    assert quiet_out.replace("/two/", "/one/") == out
