"""Who gets which task, without Ray: workers are threads here, which die when a test says so.

The laws: every task ends exactly once, whoever dies; nothing piles up in front of a slow worker; a task that kills its workers is
given up and costs no other one; a worker that is another than the first takes no part.
"""

import collections
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quam_jax.cluster.crew import Needs, Wanted, find_needs
from quam_jax.cluster.dealing import Dealer, Lost, Refused
from quam_jax.cluster.station import Station, Told

NAMES = [f"task{n}" for n in range(60)]


class Counting:
    """A job that ends each task at once, reading two ahead as a run does; what it says of itself is its greeting."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.greeting = arguments.get("greeting", "same")
        self.entered: list[str] = []

    def enter(self, word: str) -> None:
        self.entered.append(word)

    def work(self, tasks: Iterator[str], tell: Callable[[str | None, Any], None]) -> None:
        ahead: collections.deque[str] = collections.deque()
        for task in tasks:
            ahead.append(task)
            if task in self.arguments.get("errors", ()):
                raise OSError(f"{task}: no space")
            time.sleep(self.arguments.get("seconds", 0))
            if "after" in self.arguments:
                self.arguments["after"].wait(60)
            if len(ahead) > 2:
                tell(ahead.popleft(), self.entered[0])
        while ahead:
            tell(ahead.popleft(), self.entered[0])
        tell(None, "figures")


class Threads:
    """A crew of threads; `dies(worker, tasks in its hands)` says whether a worker dies with its next step."""

    def __init__(
        self, count: int, arguments: dict[str, Any], *, dies: Callable[[str, list[str]], bool] = lambda *_: False, most: int = 99
    ) -> None:
        self.count, self.arguments, self.dies, self.most = count, arguments, dies, most
        self.stations: dict[str, Station] = {}
        self.hands: dict[str, list[str]] = {}
        self.answered: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.made = self.dismissed = self.largest = 0
        self.asked: list[tuple[str, str, tuple[Any, ...]]] = []

    def grow(self) -> list[str]:
        names = []
        while len(self.stations) < self.count - self.dismissed and self.made < self.most:
            self.made += 1
            name = f"w{self.made}"
            given = self.arguments.get("by", {}).get(name, {})
            self.stations[name] = Station("tests.test_cluster:Counting", {**self.arguments, **given})
            self.hands[name] = []
            names.append(name)
        return names

    def room(self) -> int:
        return self.count

    def ask(self, worker: str, what: str, *arguments: Any) -> None:
        self.asked.append((worker, what, arguments))
        threading.Thread(target=self._call, args=(worker, what, arguments), daemon=True).start()

    def _call(self, worker: str, what: str, arguments: tuple[Any, ...]) -> None:
        station = self.stations[worker]
        if what == "step":
            self.hands[worker] += arguments[0]
            self.largest = max(self.largest, len(self.hands[worker]))
            if self.dies(worker, self.hands[worker]):
                del self.stations[worker]
                self.answered.put((worker, Lost("killed")))
                return
        try:
            answer = getattr(station, what)(*arguments)
        except Exception as error:
            self.answered.put((worker, error))
            return
        for told in getattr(answer, "told", ()):
            if told.task is not None:
                self.hands[worker].remove(told.task)
        self.answered.put((worker, answer))

    def answers(self, seconds: float) -> list[tuple[str, Any]]:
        try:
            return [self.answered.get(timeout=seconds)]
        except queue.Empty:
            return []

    def dismiss(self, worker: str) -> None:
        del self.stations[worker]
        self.dismissed += 1


class Desk:
    """What a driver keeps: how often each task ended and by whom, what was given up, who was refused."""

    def __init__(self, crew: Threads, names: list[str] = NAMES) -> None:
        self.ended: collections.Counter[str] = collections.Counter()
        self.by: collections.Counter[str] = collections.Counter()
        self.given_up: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.greetings: list[str] = []
        self.said: list[Any] = []
        self.dealer = Dealer(
            crew,
            welcome=self.welcome,
            tasks=lambda: names,
            heard=self.heard,
            given_up=self.given_up.__setitem__,
            refused=self.refused.__setitem__,
        )

    def welcome(self, worker: str, greeting: str) -> str:
        if self.greetings and greeting != self.greetings[0]:
            raise Refused(f"{worker}: another model")
        self.greetings.append(greeting)
        return "word"

    def heard(self, worker: str, told: Told) -> None:
        if told.task is None:
            self.said.append(told.value)
            return
        assert told.value == "word"
        self.ended[told.task] += 1
        self.by[worker] += 1


@pytest.mark.parametrize("count", [1, 3])
def test_every_task_ends_once_and_all_take_part(count: int) -> None:
    crew = Threads(count, {"seconds": 0.002})
    desk = Desk(crew)
    desk.dealer.deal()
    assert desk.ended == collections.Counter(NAMES)
    assert len(desk.by) == count and crew.made == count
    assert desk.said.count("figures") >= count
    steps = [name for name, what, _ in crew.asked if what == "step"]
    first = next(n for n, (_, what, _) in enumerate(crew.asked) if what == "step")
    assert [what for _, what, _ in crew.asked[:first]].count("enter") == count  # all were compared before the first task
    assert set(steps) == set(desk.by)


def test_nothing_to_do_ends_at_once() -> None:
    desk = Desk(Threads(2, {}), [])
    desk.dealer.deal()
    assert not desk.ended


def test_slow_workers_hold_no_more_than_they_read_ahead() -> None:
    crew = Threads(2, {"seconds": 0.06})
    desk = Desk(crew, NAMES[:24])
    desk.dealer.deal()
    assert desk.ended == collections.Counter(NAMES[:24])
    assert crew.largest <= 2 + 2 + 17  # two ahead, one at work, one on the way, and a second of them
    assert len(desk.by) == 2


def test_tasks_of_the_dead_are_done_by_others() -> None:
    # die with the n-th tasks that they are dealt; only of the first two is it sure that something is left to deal by then
    deaths = {"w1": 1, "w2": 1, "w3": 3, "w4": 9}
    dealt: collections.Counter[str] = collections.Counter()

    def dies(worker: str, hands: list[str]) -> bool:
        dealt[worker] += 1
        return dealt[worker] >= deaths.get(worker, 10**6)

    crew = Threads(2, {"seconds": 0.002}, dies=dies)
    desk = Desk(crew)
    desk.dealer.deal()
    assert set(desk.ended) == set(NAMES) and not desk.given_up
    assert max(desk.ended.values()) == 1  # what a dead worker had ended it had not told
    assert crew.made >= 4


def test_a_task_that_kills_its_workers_is_given_up_and_costs_no_other() -> None:
    crew = Threads(2, {"seconds": 0.001}, dies=lambda worker, hands: "task7" in hands)
    desk = Desk(crew)
    desk.dealer.deal()
    assert set(desk.given_up) == {"task7"} and "3 of them with this case alone (killed)" in desk.given_up["task7"]
    assert desk.ended == collections.Counter(n for n in NAMES if n != "task7")


def test_an_error_of_a_worker_ends_the_deal() -> None:
    with pytest.raises(OSError, match="task5: no space"):
        Desk(Threads(2, {"errors": ("task5",)})).dealer.deal()


def test_a_worker_whose_disk_is_full_leaves_and_the_others_do_its_tasks() -> None:
    crew = Threads(2, {"seconds": 0.002, "by": {"w1": {"errors": NAMES}}})
    desk = Desk(crew)
    desk.dealer.deal()
    assert list(desk.refused) == ["w1"] and desk.refused["w1"].endswith(": no space") and crew.made == 2
    assert desk.ended == collections.Counter(NAMES) and not desk.given_up and set(desk.by) == {"w2"}


def test_what_ended_before_an_error_is_told_first() -> None:
    station = Station("tests.test_cluster:Counting", {"errors": ["task4"]})
    station.begin()
    station.enter("word")
    answer, told = station.step(NAMES[:5], True), []
    with pytest.raises(OSError, match="task4: no space"):
        while True:
            told += answer.told
            assert not answer.idle
            answer = station.step([], False)
    assert [one.task for one in told] == ["task0", "task1"]


def test_workers_that_die_while_they_load_are_told() -> None:
    class Dying(Threads):
        def _call(self, worker: str, what: str, arguments: tuple[Any, ...]) -> None:
            del self.stations[worker]
            self.answered.put((worker, Lost("out of memory")))

    with pytest.raises(ValueError, match="3 workers died one after the other while they loaded: out of memory"):
        Desk(Dying(1, {})).dealer.deal()


def test_another_model_is_refused_before_the_first_task_and_left_out_later() -> None:
    with pytest.raises(ValueError, match="another model"):
        Desk(Threads(2, {"by": {"w2": {"greeting": "other"}}})).dealer.deal()
    told = threading.Event()  # nobody ends a task before
    crew = Threads(2, {"after": told, "by": {"w3": {"greeting": "other"}}}, dies=lambda worker, hands: worker == "w2")
    desk = Desk(crew)

    def refused(worker: str, why: str) -> None:
        desk.refused[worker] = why
        told.set()

    desk.dealer.refused = refused
    desk.dealer.deal()
    assert desk.ended == collections.Counter(NAMES) and desk.refused == {"w3": "w3: another model"}


@pytest.mark.parametrize(
    ("nodes", "wanted", "expected", "places"),
    [
        ([{"CPU": 8.0}], Wanted(), Needs(8.0, 0.0, {}), [1]),
        ([{"CPU": 8.0}, {"CPU": 4.0}], Wanted(workers=5), Needs(2.0, 0.0, {}), [4, 2]),
        ([{"CPU": 2.0}], Wanted(workers=9), Needs(1.0, 0.0, {}), [2]),
        ([{"CPU": 16.0}], Wanted(cpus=4), Needs(4.0, 0.0, {}), [4]),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}], Wanted(), Needs(1.0, 1.0, {}), [4, 0]),
        ([{"CPU": 96.0, "TPU": 4.0}] * 2, Wanted(), Needs(1.0, 0.0, {"TPU": 4.0}), [1, 1]),
        ([{}], Wanted(), Needs(1.0, 0.0, {}), [0]),
    ],
)
def test_a_worker_an_accelerator_else_cpus(nodes: Any, wanted: Wanted, expected: Needs, places: list[int]) -> None:
    needs = find_needs(nodes, wanted)
    assert needs == expected and [needs.places(node) for node in nodes] == places


def test_a_station_takes_a_second_stream_after_the_first() -> None:
    station = Station("tests.test_cluster:Counting", {})
    assert station.begin() == "same"
    station.enter("word")
    for name in ("a", "b"):
        answers = [station.step([name], True)]
        while not answers[-1].idle:
            answers.append(station.step([], False))
        assert [told.task for answer in answers for told in answer.told] == [name, None]
