"""What is seen of work under way: lines for a log and bars on a terminal, by a clock that the test moves."""

import io
import re
import time
from typing import Any

import pytest

from quam_jax.cli.common import progress_bar, progress_bars
from quam_jax.cli.display import Bars, Display, Entries, Lines, rich_progress
from quam_jax.cli.phases import Board
from quam_jax.core.progress import (
    COMPILED,
    COMPILING,
    ENDED,
    EXPECTED,
    GIVEN,
    IDLE,
    SEARCHING,
    Event,
    about_case,
    listening,
    phases,
    tell,
)


class Shop:
    """A display with plain lines, its board, and a clock."""

    def __init__(self) -> None:
        self.now, self.lines = 0.0, list[str]()
        self.display = Display(Lines(self.lines.append, self.clock), clock=self.clock)
        self.board = Board(self.display)

    def clock(self) -> float:
        return self.now

    def hear(self, phase: str, unit: str = "", number: int = 0, total: int = 0, *, case: str = "", note: str = "") -> None:
        self.board.hear(Event(phase, unit, number, total, case, note))

    def wait(self, seconds: float, look: float = 0.5) -> None:
        for _ in range(round(seconds / look)):
            self.now += look
            self.display.look()

    def text(self) -> str:
        shown = self.board.shown()
        return "" if shown is None else shown.text


def test_a_run_of_slow_cases_leaves_a_line_each_after_what_to_expect() -> None:
    shop = Shop()
    shop.hear(EXPECTED, total=3, note="3 cases of 4x4, about 40 s each")
    for n, name in enumerate("abc", 1):
        shop.now += 40 if n > 1 else 60
        shop.hear(ENDED, number=n, total=3, case=name, note="40 s")
    assert shop.lines == [
        "3 cases of 4x4, about 40 s each",
        "[1/3] a: 40 s, at most 2 min left",
        "[2/3] b: 40 s, about 40 s left",
        "[3/3] c: 40 s",
    ]


def test_thousands_of_quick_cases_leave_some_lines_and_the_last() -> None:
    shop = Shop()
    shop.hear(EXPECTED, total=10_000, note="10,000 cases")
    for n in range(1, 10_001):
        shop.now += 0.03
        shop.hear(ENDED, number=n, total=10_000, case=f"c{n}", note="0.03 s")
    assert 30 < len(shop.lines) < 110
    assert shop.lines[-1] == "[10,000/10,000] c10000: 0.03 s"
    counts = [int(re.findall(r"\[([\d,]+)/", line)[0].replace(",", "")) for line in shop.lines[1:]]
    assert counts == sorted(set(counts)) and (counts[1] - counts[0]) * 0.03 == pytest.approx(2, abs=0.1)
    left = [line for line in shop.lines if "about" in line]
    assert "about 5 min left" in left[0] and "s left" in left[-1]


def test_the_line_that_was_held_back_comes_at_the_end_unless_all_was_over_in_a_moment() -> None:
    shop = Shop()
    shop.display.update("cases", "", 0, 9)
    for n in range(1, 5):
        shop.now += 0.6
        shop.display.update("cases", f"c{n}", n, 9)
    assert len(shop.lines) == 1
    shop.display.close()
    assert shop.lines[1].startswith("[4/9] c4")
    quick = Shop()
    for n in range(1, 4):
        quick.now += 0.1
        quick.display.update("parts", f"p{n}", n, 3)
    quick.display.close()
    assert quick.lines == []


def test_cases_that_needed_no_work_say_nothing_about_the_rest() -> None:
    shop = Shop()
    shop.hear(EXPECTED, total=100, note="100 cases, 50 of them there from before")
    for n in range(1, 51):
        shop.now += 0.1
        shop.hear(ENDED, number=n, total=100, case=f"c{n}", note=GIVEN)
    for n in range(51, 54):
        shop.now += 30
        shop.hear(ENDED, number=n, total=100, case=f"c{n}", note="30 s")
    assert "left" not in "".join(shop.lines[:-3])
    assert shop.lines[-1] == "[53/100] c53: 30 s, about 24 min left" or shop.lines[-1].endswith("about 25 min left")


def test_a_phase_that_lasts_has_a_line_and_never_many() -> None:
    shop = Shop()
    shop.hear(EXPECTED, total=1, note="1 case")
    for step in range(1, 201):
        shop.hear(SEARCHING, "step", step, 200, case="a")
        shop.wait(0.5)
    assert shop.lines[:2] == ["1 case", "a: searching: step 10 of 200"]
    assert len(shop.lines) == 1 + 10  # 100 seconds: the first after five, one every ten
    shop.hear(IDLE, case="a")
    before = list(shop.lines)
    shop.wait(100)
    assert shop.lines == before
    shop.hear("merging")
    shop.wait(130)  # without any news: at once, and every minute
    assert shop.lines[len(before) :] == ["merging", "merging (for 65 s now)", "merging (for 2 min now)"]


def test_a_compilation_is_named_when_it_takes_more_than_a_second_and_the_phase_goes_on_behind_it() -> None:
    shop = Shop()
    shop.hear(EXPECTED, total=1, note="1 case")
    shop.hear(SEARCHING, "step", 1, 6, case="a")
    for _ in range(10):  # small ones
        shop.hear(COMPILING, case="a")
        shop.wait(0.2, 0.1)
        shop.hear(COMPILED, case="a")
    assert shop.text() == "a: searching: step 1 of 6" and len(shop.lines) == 1
    shop.hear(COMPILING, case="a")
    shop.hear(COMPILING, case="a")  # another thread
    shop.wait(1.5, 0.25)
    assert shop.text() == "a: compiling" and shop.lines[1:] == ["a: compiling"]
    shop.hear(SEARCHING, "step", 2, 6, case="a")  # the first thread goes on
    shop.hear(COMPILED, case="a")
    assert shop.text() == "a: compiling"
    shop.hear(COMPILED, case="a")
    assert shop.text() == "a: searching: step 2 of 6"


def test_what_comes_before_the_first_line_is_named_only_when_it_takes_long() -> None:
    shop = Shop()
    shop.hear("reading fit data", "case", 3, 8)
    shop.wait(9)
    assert shop.lines == []
    shop.wait(2)
    assert shop.lines == ["reading fit data: case 3 of 8"]


def test_units_are_nested_and_the_search_stands_in_front_of_what_is_read_ahead() -> None:
    shop = Shop()
    shop.hear(SEARCHING, "patch", 12, 40, case="v")
    shop.hear(SEARCHING, "fold", 1, 1, case="v")
    shop.hear(SEARCHING, "chunk", 2, 3, case="v")
    shop.hear(SEARCHING, "step", 3, 6, case="v")
    shop.hear("reading", case="w")
    shop.hear("writing", case="u")
    assert shop.text() == "v: searching: patch 12 of 40, chunk 2 of 3, step 3 of 6"
    shown = shop.board.shown()
    assert shown is not None and shown.share == pytest.approx((11 + (1 + 2 / 6) / 3) / 40)
    shop.hear(SEARCHING, "step", 2, 6, case="v")  # a model beside it
    assert shop.text().endswith("step 3 of 6")
    shop.hear(SEARCHING, "patch", 13, 40, case="v")
    assert shop.text() == "v: searching: patch 13 of 40"
    shop.hear(IDLE, case="v")
    assert shop.text() == "u: writing"
    shop.hear(IDLE, case="u")
    assert shop.text() == "w: reading"
    shop.hear(IDLE, case="w")
    assert shop.text() == ""
    shop.display.look()


def test_what_is_told_of_no_case_ends_with_the_entry_it_belongs_to() -> None:
    shop = Shop()
    shop.display.update("tuning", "", 0, 4)
    shop.hear(SEARCHING, "step", 6, 6)
    shop.now += 3
    shop.display.update("tuning", "net quam_tuned a", 1, 4)
    assert shop.text() == "" and shop.lines == ["tuning [1/4] net quam_tuned a, at most 9 s left"]


def test_a_list_that_lasts_is_announced_with_its_total() -> None:
    lines: list[str] = []
    display = Display(Lines(lines.append), words={"tuning": "settings on cases to score"})
    display.update("tuning", "", 0, 1200)
    display.update("tuning", "", 0, 1200)
    display.update("cases", "", 0, 3)
    assert lines == ["tuning: 1,200 settings on cases to score"]


def test_left_follows_the_last_entries() -> None:
    entries = Entries(1000, 0.0)
    for n in range(1, 101):
        entries.done = n
        text = entries.left(float(n))
    assert text == "about 15 min left"
    for n in range(101, 131):
        entries.done = n
        text = entries.left(100 + 10.0 * (n - 100))
    assert text == "about 2.4 h left"  # 870 x 10 s
    assert Entries(5, 0.0).left(3.0) == "" and Entries(5, 0.0, done=5).left(3.0) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """What it was sent, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())

    def until(self, words: str) -> None:
        """Wait for the display, which looks and draws in its own time; what it never shows is told by the test."""
        end = time.monotonic() + 30
        while words not in self.text() and time.monotonic() < end:
            time.sleep(0.01)


def drawn(monkeypatch: pytest.MonkeyPatch, act: Any, *, quiet: bool = False) -> str:
    """What a terminal of 120 columns was sent while `act(terminal, update)` ran."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    for name, value in (("COLUMNS", "120"), ("TERM", "xterm"), ("TTY_COMPATIBLE", "1")):
        monkeypatch.setenv(name, value)
    with progress_bars(quiet=quiet) as update:
        act(terminal, update)
    return terminal.text()


def test_a_bar_knows_its_total_from_the_start_and_names_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quam_jax.cli.display.TICK", 0.01)

    def run(terminal: Terminal, update: Any) -> None:
        tell("loading the model")
        terminal.until("loading the model")
        tell(EXPECTED, total=4, note="4 cases of [4x4]")
        with about_case("[b]7"), phases():
            tell(SEARCHING, "step", 4, 6)
            terminal.until("searching: step 4 of 6")
        with about_case("[b]7"):
            tell(ENDED, number=1, total=4, note="3 s")

    shown = drawn(monkeypatch, run)
    lines = [line.strip() for line in re.split(r"[\r\n]+", shown) if line.strip()]
    bars = [line for line in lines if "/4" in line]
    assert "4 cases of [4x4]" in lines and "loading the model" in shown
    assert "?" not in shown  # never without a total
    assert "0/4" in bars[0] and any("[b]7: searching: step 4 of 6" in line for line in bars)
    assert "1/4" in bars[-1] and "[1/4] [b]7: 3 s" in bars[-1]
    monkeypatch.setattr(Terminal, "until", lambda *_: time.sleep(0.1))
    assert drawn(monkeypatch, run, quiet=True) == ""


def test_a_bar_moves_within_a_case() -> None:
    progress = rich_progress()
    view = Bars(progress)
    display = Display(view)
    board = Board(display)
    display.look()
    display.expect("", "cases", 2)
    board.hear(Event(SEARCHING, "step", 4, 6, "a"))
    display.look()
    task = next(task for task in progress.tasks if task.description == "cases")
    assert (task.completed, task.total) == (0.5, 2)
    display.update("cases", "a", 1, 2)
    assert task.completed == 1
    display.update("more", "", 0, 7)  # the next list takes the place of the first
    assert [task.visible for task in progress.tasks if task.total is not None] == [False, True]


def test_lines_go_to_stderr_and_listening_ends_with_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[Event] = []
    with listening(heard.append):
        with progress_bar("cases", quiet=False):
            tell(EXPECTED, total=1, note="1 case")
        with progress_bar("cases", quiet=False, listen=False):
            tell("heard outside")
        with progress_bar("cases", quiet=True):
            tell("heard outside")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "1 case\n")
    assert [event.phase for event in heard] == ["heard outside"] * 2


def test_a_closed_stderr_ends_no_computation() -> None:
    def broken(text: str) -> None:
        raise BrokenPipeError

    display = Display(Lines(broken), clock=lambda: 0.0)
    board = Board(display)
    board.hear(Event("merging"))
    display.clock = board.clock = display.view.clock = lambda: 100.0  # type: ignore[attr-defined]
    display.watch()  # comes back
