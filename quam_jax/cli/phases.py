"""From what a computation tells (core/progress.py) to the phase that is shown, of the case that matters most."""

import threading
from typing import NamedTuple

from ..core.progress import CHOSEN, COMPILED, COMPILING, ENDED, EXPECTED, GIVEN, IDLE, SAID, SEARCHING, UNITS, Event
from .display import CASES, COMPILES, Display, Shown, joined


class _Place(NamedTuple):
    """Where a case is: its phase since when, and how far every unit of it is, the outermost first."""

    phase: str
    since: float
    levels: dict[str, tuple[int, int]]


class Board:
    """Which phases are under way, by case, from what is told of them."""

    def __init__(self, display: Display) -> None:
        self.display, self.clock = display, display.clock
        self.places: dict[str, _Place] = {}
        self.compiling: dict[str, tuple[int, float]] = {}
        self.lock = threading.Lock()
        display.phases = self

    def hear(self, event: Event) -> None:
        """The listener: what concerns a list goes to the display, phases stay here until somebody looks."""
        if event.phase == EXPECTED:
            self.display.expect(event.note, CASES, event.total)
        elif event.phase == ENDED:
            self.display.update(CASES, event.case, event.number, event.total, note=event.note, given=event.note == GIVEN)
        elif event.phase == CHOSEN:
            self.display.say_once(f"search: {event.note}")
        elif event.phase == SAID:
            self.display.say(event.note)
        else:
            with self.lock:
                self._take(event)

    def _take(self, event: Event) -> None:
        case, now = event.case, self.clock()
        if event.phase in (COMPILING, COMPILED):
            count, since = self.compiling.pop(case, (0, now))
            count += 1 if event.phase == COMPILING else -1
            if count > 0:
                self.compiling[case] = (count, since)
            return
        old = self.places.pop(case, None)
        if event.phase == IDLE:
            self.compiling.pop(case, None)
            return
        since = old.since if old is not None and old.phase == event.phase else now
        levels: dict[str, tuple[int, int]] = {}
        if event.unit:
            outer = UNITS[: UNITS.index(event.unit)]
            levels = {unit: count for unit, count in old.levels.items() if unit in outer} if old is not None else {}
            before = old.levels.get(event.unit, (0, 0)) if old is not None and old.phase == event.phase else (0, 0)
            # two models side by side tell of their own steps
            number = max(before[0], event.number) if event.unit == UNITS[-1] and before[1] == event.total else event.number
            levels[event.unit] = (number, event.total)
        self.places[case] = _Place(event.phase, since, levels)

    def forget(self) -> None:
        """What is told of no case in particular belongs to the entry that has ended."""
        with self.lock:
            self.places.pop("", None)
            self.compiling.pop("", None)

    def shown(self) -> Shown | None:
        """The phase to show: that of the case told of last, a search in front of what is read ahead or written behind it."""
        with self.lock:
            places, now = list(self.places.items()), self.clock()
            if not places:
                return None
            case, place = max(enumerate(places), key=lambda item: (_rank(item[1][1]), item[0]))[1]
            count, since = self.compiling.get(case, (0, now))
        if count and now - since > COMPILES:
            return Shown(joined(case, COMPILING), now - since, True, _share(place))
        counted = [f"{unit} {number} of {total}" for unit, (number, total) in place.levels.items() if total > 1]
        return Shown(joined(case, place.phase, ", ".join(counted)), now - place.since, False, _share(place))


def _rank(place: _Place) -> int:
    return {"reading": 0, "scoring": 1, "writing": 1}.get(place.phase, 2)


def _share(place: _Place) -> float:
    """The part of a search that lies behind; 0 in what comes in front of it."""
    share, scale = 0.0, 1.0
    counted = place.levels.values() if place.phase == SEARCHING else ()
    for number, total in (pair for pair in counted if pair[1] > 0):
        share += scale * (number - 1) / total
        scale /= total
    return share
