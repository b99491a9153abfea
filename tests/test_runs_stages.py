"""Three steps side by side: everything arrives once, little waits, one failure harms nobody else, and nothing is hidden."""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from quam_jax.runs.stages import Failed, Passed, Times, run_stages


def each(function: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """A lane that takes its items one by one."""
    return lambda items: [function(item) for item in items]


def collect(count: int, **steps: Any) -> list[Any]:
    found: list[Any] = []
    arguments = {"read": lambda n: n, "lanes": [each(lambda n: 10 * n)], "write": found.append, **steps}
    run_stages(iter(range(count)), **arguments)
    return found


def ended_threads(before: int) -> bool:
    """Whether no more threads are left than there were, once they have had time to end."""
    until = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    return threading.active_count() <= before


def test_every_item_goes_through_all_steps_in_order() -> None:
    assert collect(20) == [10 * n for n in range(20)]
    assert collect(0) == []


def test_the_next_item_is_read_and_the_last_one_written_while_one_is_worked_on() -> None:
    read, written = [threading.Event() for _ in range(6)], [threading.Event() for _ in range(5)]

    def lane(n: int) -> int:
        assert read[n + 1].wait(20), "the next item was not read ahead"
        assert n < 1 or written[n - 1].wait(20), "the result before was not written meanwhile"
        return n

    run_stages(
        iter(range(5)),
        read=lambda n: read[n].set() or n,
        lanes=[each(lambda n: lane(n) if n < 4 else n)],
        write=lambda n: written[n].set(),
    )
    assert written[4].is_set()


def test_few_items_are_held_at_a_time() -> None:
    """2 wait before the lane, 1 is being read, 1 worked on, 2 behind: never more than 6 however slow the writer is."""
    inside, most, lock = 0, 0, threading.Lock()

    def read(n: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        return n

    def write(n: int) -> None:
        nonlocal inside
        time.sleep(0.01)
        with lock:
            inside -= 1

    run_stages(iter(range(40)), read=read, lanes=[each(lambda n: n)], write=write)
    assert 2 <= most <= 6 and inside == 0


def test_one_bad_item_is_told_and_the_others_go_on() -> None:
    def read(n: int) -> int:
        if n == 2:
            raise ValueError("torn")
        return n

    def lane(n: int) -> int:
        if n == 4:
            raise RuntimeError("out of memory")
        return n

    assert collect(6, read=read, lanes=[each(lane)]) == [0, 1, Failed(2, "torn"), 3, Failed(4, "RuntimeError: out of memory"), 5]


def test_what_needs_no_work_goes_past_the_lanes() -> None:
    assert collect(3, read=lambda n: Passed(n) if n == 1 else n) == [0, Passed(1), 20]


@pytest.mark.parametrize("place", ["items", "read", "lane", "write"])
def test_other_errors_stop_everything_and_are_raised(place: str) -> None:
    def broken(n: int) -> int:
        if n == 3:
            raise OSError("disk gone") if place == "write" else TypeError("a mistake")
        return n

    def items() -> Any:
        yield from (broken(n) if place == "items" else n for n in range(1000))

    steps = {"read": lambda n: n, "lanes": [each(lambda n: n)], "write": lambda n: None}
    steps |= {place: broken} if place in ("read", "write") else {"lanes": [each(broken)]} if place == "lane" else {}
    before = threading.active_count()
    with pytest.raises((OSError, TypeError), match="disk gone|a mistake"):
        run_stages(items(), **steps)
    assert ended_threads(before)


def test_an_interrupt_in_a_lane_ends_the_other_threads() -> None:
    def lane(n: int) -> int:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run_stages(iter(range(100)), read=lambda n: n, lanes=[each(lane)], write=lambda n: None)
    assert ended_threads(before)


def test_several_lanes_share_the_items() -> None:
    used: dict[int, int] = {}
    meet = threading.Barrier(3, timeout=20)

    def lane(number: int) -> Any:
        def work(n: int) -> int:
            used[number] = used.get(number, 0) + 1
            if n < 3:
                meet.wait()  # all three lanes are at work at the same time
            return n

        return work

    found = collect(30, lanes=[each(lane(k)) for k in range(3)])
    assert sorted(found) == list(range(30)) and sum(used.values()) == 30 and set(used) == {0, 1, 2}


def test_small_items_share_a_batch() -> None:
    """Items of a quarter go four at a time, what needs no work beside them; a big one closes a batch. Order is kept."""
    batches: list[list[int]] = []

    def lane(items: list[int]) -> list[int]:
        batches.append(items)
        return [10 * n for n in items]

    found = collect(11, lanes=[lane], read=lambda n: Passed(n) if n == 2 else n, size=lambda n: 1.0 if n == 7 else 0.25)
    assert found == [0, 10, Passed(2), *(10 * n for n in range(3, 11))]
    assert batches == [[0, 1, 3, 4], [5, 6, 7], [8, 9, 10]]


def test_a_batch_that_fails_harms_only_the_bad_one() -> None:
    def lane(items: list[int]) -> list[int]:
        if 2 in items:
            raise ValueError("torn")
        return items

    assert collect(6, lanes=[lane], size=lambda n: 0.25) == [0, 1, Failed(2, "torn"), 3, 4, 5]


def test_a_batch_is_read_while_another_one_is_worked_on() -> None:
    read = [threading.Event() for _ in range(8)]

    def lane(items: list[int]) -> list[int]:
        if items[0] == 0:
            assert all(event.wait(20) for event in read[4:]), "the next batch was not read ahead"
        return items

    run_stages(iter(range(8)), read=lambda n: read[n].set() or n, lanes=[lane], write=lambda n: None, size=lambda n: 0.25)


def test_files_that_do_not_answer_fail_and_the_rest_goes_on() -> None:
    hung = threading.Event()

    def read(n: int) -> int:
        if n == 1:
            hung.wait(300)
        return n

    found = collect(4, read=read, stall=1.0)
    hung.set()
    assert [f for f in found if not isinstance(f, Failed)] == [0, 20, 30]
    late = next(f for f in found if isinstance(f, Failed))
    assert late.item == 1 and "no answer for 1 seconds" in late.reason


def test_times_tell_waiting_from_working() -> None:
    def slow(n: int) -> int:
        time.sleep(0.05)
        return n

    def times_of(**steps: Any) -> Times:
        arguments = {"read": lambda n: n, "lanes": [each(lambda n: n)], "write": lambda n: None, **steps}
        return run_stages(iter(range(5)), **arguments)

    def tells(times: Times, *, waiting: bool) -> bool:
        assert times.items == 5
        return times.starved > 0.1 and times.busy < 0.5 if waiting else times.worked >= 0.25 and times.busy > 0.5

    # one of some attempts, because a machine with other things to do may stop any of the threads for a while
    assert any(tells(times_of(read=slow), waiting=True) for _ in range(5))
    assert any(tells(times_of(lanes=[each(slow)]), waiting=False) for _ in range(5))


def test_short_of_memory_nothing_is_begun_before_the_last_is_written() -> None:
    order: list[tuple[str, int]] = []

    def lane(items: list[int]) -> list[int]:
        order.extend(("search", item) for item in items)
        return items

    def write(item: int) -> None:
        time.sleep(0.01)
        order.append(("write", item))

    run_stages(iter(range(4)), read=lambda item: item, lanes=[lane], write=write, alone=True)
    assert order == [(kind, item) for item in range(4) for kind in ("search", "write")]


def test_a_case_that_is_written_is_not_held_beside_the_next_search() -> None:
    class Result:
        pass

    alive: list[weakref.ref[Result]] = []
    held: list[int] = []

    def lane(items: list[int]) -> list[Result]:
        held.append(sum(one() is not None for one in alive))
        found = [Result() for _ in items]
        alive.extend(weakref.ref(one) for one in found)
        return found

    run_stages(iter(range(4)), read=lambda item: item, lanes=[lane], write=lambda found: None, alone=True)
    assert held == [0, 0, 0, 0]
