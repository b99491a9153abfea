"""Ways to run that are chosen by measurement: the fastest that fits, where timing pays, and kept between processes."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quam_jax.core.compilation import keep_choices
from quam_jax.core.layout.choose import Layout, choose_layout
from quam_jax.core.layout.measuring import Candidate, Choice, candidates, choose, key_of, like_searches
from quam_jax.data.choices import Choices

RULE = choose_layout(Layout(), members=12, backend="gpu")
WAYS = candidates(Layout(), RULE, members=12, backend="gpu")


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """No choice of another test."""
    keep_choices(None)
    yield
    keep_choices(None)


class Clock:
    """Made-up times: every candidate has seconds a step and seconds until it is timed."""

    def __init__(self, seconds: list[float], takes: float = 0.0) -> None:
        self.seconds = dict(zip((way.name for way in WAYS), seconds, strict=False))
        self.now, self.takes, self.timed = 0.0, takes, [""][:0]

    def __call__(self) -> float:
        return self.now

    def time_of(self, way: Candidate) -> float:
        self.timed.append(way.name)
        self.now += self.takes
        return self.seconds.get(way.name, 9.0)

    def choose(self, *, work: float = 1e9) -> Choice:
        return choose(WAYS, self.time_of, key="k", work=work, probe=10, clock=self)


# candidates


def test_the_rule_comes_first_and_what_was_asked_for_stays() -> None:
    assert WAYS[0] == Candidate(RULE) and len({way.name for way in WAYS}) == len(WAYS)
    kinds = {(way.layout.members, way.layout.steps) for way in WAYS}
    assert kinds == {("vmap", "scan"), ("vmap", "loop"), ("loop", "loop"), ("unroll", "scan")}
    assert {way.layout.chunk for way in WAYS} == {0, 1, 2, 3, 4}
    assert {way.products for way in WAYS if way.layout.members == "vmap"} == {False, True}
    loops = candidates(Layout(members="loop"), choose_layout(Layout(members="loop"), members=12, backend="gpu"), members=12)
    assert {way.layout.members for way in loops} == {"loop"}
    by_hand = Layout("vmap", "scan", 5)
    some = candidates(by_hand, choose_layout(by_hand, members=12, backend="gpu"), members=12, backend="gpu")
    assert {(way.layout.members, way.layout.steps, way.layout.chunk) for way in some} == {("vmap", "scan", 5)}


def test_on_a_cpu_nothing_is_compiled_and_no_more_memory_taken() -> None:
    for operations, chunks in ((0, [2, 1]), (2**40, [1])):
        rule = choose_layout(Layout(), members=12, operations=operations, backend="cpu")
        some = candidates(Layout(), rule, members=12, backend="cpu")
        assert [way.layout.chunk for way in some] == chunks
        assert {(way.layout.members, way.layout.steps, way.products) for way in some} == {("loop", "loop", False)}
    for asked in (Layout(chunk=2), Layout("loop"), Layout("vmap"), Layout("unroll")):
        rule = choose_layout(asked, members=12, backend="cpu")
        assert candidates(asked, rule, members=12, backend="cpu") == [Candidate(rule)]


# the choice, with made-up times


def test_the_fastest_that_fits_is_taken() -> None:
    for best in range(len(WAYS)):
        seconds = [1.0] * len(WAYS)
        seconds[best] = 0.5
        found = Clock(seconds).choose()
        assert (found.candidate, found.how) == (WAYS[best], "measured") and len(found.seconds) == len(WAYS)
    broken = Clock([1.0, math.inf, 0.7, *[math.inf] * len(WAYS)]).choose()
    assert broken.candidate == WAYS[2] and broken.seconds == {WAYS[0].name: 1.0, WAYS[2].name: 0.7}
    assert Clock([math.inf, 0.9, *[math.inf] * len(WAYS)]).choose().candidate == WAYS[1]  # the rule does not fit
    assert Clock([math.inf] * len(WAYS)).choose().candidate == WAYS[0]


def test_a_tie_keeps_the_rule() -> None:
    assert Clock([1.0, 0.96, 1.0]).choose().candidate == WAYS[0]
    assert Clock([1.0, 0.94, 1.0]).choose().candidate == WAYS[1]


def test_who_wins_once_by_chance_is_not_taken() -> None:
    lucky = Clock([1.0, 0.5])
    values = iter([1.0, 0.5, *[2.0] * (len(WAYS) - 2), 1.0, 1.0])
    found = choose(WAYS, lambda way: next(values), key="k", work=1e9, probe=10, clock=lucky)
    assert found.candidate == WAYS[0] and next(values, None) is None


def test_only_what_pays_is_timed() -> None:
    nothing = Clock([1.0, 0.1])
    assert nothing.choose(work=199) == Choice(WAYS[0], "rule", {}) and not nothing.timed  # 20 times 10 steps
    with like_searches(2):
        assert nothing.choose(work=100).how == "measured"
    slow = Clock([1.0, 0.1, 0.05], takes=100.0)  # a candidate takes 100 s, the searches 1,000: not even a second one pays
    assert slow.choose(work=1000) == Choice(WAYS[0], "rule", {WAYS[0].name: 1.0}) and len(slow.timed) == 1
    some = Clock([1.0, 0.1, 0.05], takes=100.0)
    assert some.choose(work=4000).candidate == WAYS[1] and set(some.timed) == {WAYS[0].name, WAYS[1].name}


def test_ways_of_the_same_programs_need_no_compilation() -> None:
    """Compiling took 1,000 s for the rule: only a way that needs none of its own is timed."""
    rule = choose_layout(Layout(), members=12, backend="cpu")
    same = candidates(Layout(), rule, members=12, backend="cpu")
    times = {same[0]: 1.0, same[1]: 0.5, WAYS[0]: 0.1}

    def choice(ways: list[Candidate], work: float) -> Choice:
        clock = Clock([])

        def compile_rule() -> None:
            clock.now += 1000.0

        return choose(ways, times.__getitem__, key="k", work=work, probe=10, compile_rule=compile_rule, clock=clock)

    found = choice([same[0], WAYS[0], same[1]], 1e4)
    assert found.candidate == same[1] and set(found.seconds) == {same[0].name, same[1].name}
    assert choice([same[0], WAYS[0]], 1e5).candidate == WAYS[0]


def test_a_choice_is_kept_and_taken_without_timing(tmp_path: Path) -> None:
    keep_choices(Choices(tmp_path / "some" / "choices.json"))
    first = Clock([1.0, 0.5])
    assert first.choose().how == "measured"
    again = Clock([0.1, 9.0])
    assert again.choose(work=1) == Choice(WAYS[1], "kept", first.choose().seconds) and not again.timed
    other = choose(WAYS, again.time_of, key="another", work=1, probe=10)
    assert other.how == "rule"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": 1, "choices": []}',
        '{"format": 1, "choices": {"k": 3}}',
        '{"format": 1, "choices": {"k": {"name": "members sideways", "seconds": {}}}}',
        '{"format": 1, "choices": {"k": {"name": 5, "seconds": {}}}}',
        '{"format": 1, "choices": {"k": {"name": "NAME", "seconds": {"NAME": -1}}}}',
        '{"format": 2, "choices": {"k": {"name": "NAME", "seconds": {}}}}',
    ],
)
def test_a_damaged_file_only_costs_the_timing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "choices.json"
    path.write_text(text.replace("NAME", WAYS[2].name))
    keep_choices(Choices(path))
    assert Clock([1.0, 0.5]).choose() == Clock([1.0, 0.5]).choose()._replace(how="measured")
    assert json.loads(path.read_text())["choices"]["k"]["name"] == WAYS[1].name  # and it is whole again


def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep_choices(Choices(tmp_path / "file" / "choices.json"))
    assert Clock([1.0, 0.5]).choose().how == "measured"


def test_few_choices_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quam_jax.data.choices.MOST", 3)
    kept = Choices(tmp_path / "choices.json")
    for number in range(5):
        kept.keep(str(number), "a", {"a": 1.0})
    assert [kept.find(str(number)) is not None for number in range(5)] == [False, False, True, True, True]


def test_a_key_is_that_of_everything_but_addresses() -> None:
    assert key_of(1, print) == key_of(1, print) != key_of(2, print)

    def make() -> Callable[[], None]:
        return lambda: None

    assert key_of(make()) == key_of(make())
