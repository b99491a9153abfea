"""Three steps side by side: the next items are read and the last ones written while the device works on the present one.

Reading and writing have a thread each, every lane (a device) one of its own; queues of a few items between them keep memory
flat. A lane takes one item at a time, or a batch of small ones: `size` says which part of a batch an item fills. A step that
fails gives its item up with the reason and the others go on; an error that is no fault of the item stops everything and is
raised. Knows nothing of files or models.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..core.progress import carried
from ..data.large import FULL

FAULTS = (ValueError, OSError, RuntimeError, MemoryError)  # of one item
_END = object()
_TICK = 0.1


class Failed(NamedTuple):
    """An item that a step gave up, and why; `full` where a disk of this machine had no room, which another machine may have."""

    item: Any
    reason: str
    full: bool = False


class Passed(NamedTuple):
    """What reading found to need no work."""

    value: Any


@dataclass
class Times:
    """Seconds of the lanes: at work, waiting for the next item (the first apart), waiting for the writer; and of it all."""

    lanes: int = 1
    worked: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    first: float = 0.0
    wall: float = 0.0
    items: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **seconds: float) -> None:
        """Add to some of the sums."""
        with self.lock:
            for name, value in seconds.items():
                setattr(self, name, getattr(self, name) + value)

    @property
    def busy(self) -> float:
        """Share of the lanes' time, from the first item's arrival to the last result, in which they were at work."""
        total = self.worked + self.starved + self.blocked
        return self.worked / total if total > 0 else 1.0


def run_stages(
    items: Iterator[Any],
    *,
    read: Callable[[Any], Any],
    lanes: Sequence[Callable[[list[Any]], list[Any]]],
    write: Callable[[Any], None],
    size: Callable[[Any], float] = lambda item: 1.0,
    ahead: int = 2,
    stall: float = 600.0,
    alone: bool = False,
    times: Times | None = None,
) -> Times:
    """Take every item through `read`, one of the `lanes` and `write`, which gets what came of it: a result, Passed or Failed.

    A lane gets items until their sizes reach 1 or there are no more, and returns a result for each; where it fails, each of
    them is tried alone. `read` may return Passed for what needs no work. Order is kept with one lane. Items whose sizes
    reach `ahead` wait before a lane and as many behind it. An item whose reading does not answer for `stall` seconds fails,
    and reading goes on with the next one in a new thread. Errors of `items` and `write`, and those of other kinds than FAULTS,
    stop everything and are raised. Where memory is short a lane goes `alone`: it begins nothing before what it found is written.
    """
    times = times or Times()
    times.lanes = len(lanes)
    pipe = _Pipe(items, read, write, size, ahead, stall, alone, times)
    began = time.perf_counter()
    threads = [threading.Thread(target=carried(pipe.guard), args=(pipe.work, lane), daemon=True) for lane in lanes[1:]]
    writer = threading.Thread(target=carried(pipe.guard), args=(pipe.write_all,), daemon=True)
    pipe.start_reader()
    for thread in (*threads, writer):
        thread.start()
    try:
        pipe.guard(pipe.work, lanes[0])
    except BaseException:  # an interrupt arrives in this thread; the others must see it
        pipe.stop.set()
        raise
    finally:
        for thread in threads:
            _join(thread)
        pipe.results.put(_END)
        _join(writer)
        times.add(wall=time.perf_counter() - began)
    if pipe.errors:
        raise pipe.errors[0]
    return times


class _Room:
    """Room for items whose sizes add up to `limit`; one item always finds some."""

    def __init__(self, limit: float, stop: threading.Event) -> None:
        self.limit, self.stop, self.used, self.changed = limit + 1e-6, stop, 0.0, threading.Condition()

    def take(self, size: float) -> bool:
        """Wait until there is room; False when everything stops."""
        with self.changed:
            while self.used > 1e-6 and self.used + size > self.limit:
                if self.stop.is_set():
                    return False
                self.changed.wait(_TICK)
            self.used += size
        return not self.stop.is_set()

    def wait_empty(self) -> None:
        """Wait until nothing takes room any more, or everything stops."""
        with self.changed:
            while self.used > 1e-6 and not self.stop.is_set():
                self.changed.wait(_TICK)

    def free(self, size: float) -> None:
        with self.changed:
            self.used -= size
            self.changed.notify_all()


class _Pipe:
    def __init__(
        self,
        items: Iterator[Any],
        read: Callable[[Any], Any],
        write: Callable[[Any], None],
        size: Callable[[Any], float],
        ahead: int,
        stall: float,
        alone: bool,
        times: Times,
    ) -> None:
        self.items, self.read, self.write, self.size_of, self.stall, self.times = items, read, write, size, stall, times
        self.alone = alone
        self.loaded: queue.Queue[Any] = queue.Queue()
        self.results: queue.Queue[Any] = queue.Queue()
        self.stop = threading.Event()
        self.before, self.behind = _Room(ahead, self.stop), _Room(ahead, self.stop)
        self.errors: list[BaseException] = []
        self.turn = threading.Lock()  # of the reader's state
        self.reader = 0
        self.reading: tuple[Any, float] | None = None

    def size(self, found: Any) -> float:
        """The part of a batch that something fills; what needs no work counts as a whole one."""
        return 1.0 if isinstance(found, Failed | Passed) else self.size_of(found)

    def guard(self, step: Callable[..., None], *arguments: Any) -> None:
        """Run a step; its error stops all others."""
        try:
            step(*arguments)
        except Exception as error:  # raised by run_stages
            self.errors.append(error)
            self.stop.set()

    def start_reader(self) -> None:
        with self.turn:
            self.reader += 1
            number = self.reader
        threading.Thread(target=carried(self.guard), args=(self.read_all, number), daemon=True).start()

    def read_all(self, number: int) -> None:
        """Read items as long as this is the reader in charge; one that stood still comes back to find it is not."""
        try:
            while not self.stop.is_set():
                with self.turn:
                    if self.reader != number:
                        return
                item = next(self.items, _END)
                if item is _END:
                    break
                with self.turn:
                    self.reading = (item, time.monotonic())
                try:
                    found = self.read(item)
                except FAULTS as error:
                    found = _failed(item, error)
                with self.turn:
                    if self.reader != number:
                        return
                    self.reading = None
                self._put(found)
        finally:
            if self.reader == number:
                self._put(_END)

    def _put(self, value: Any) -> None:
        if value is _END or self.before.take(self.size(value)):
            self.loaded.put(value)

    def next_loaded(self) -> Any:
        """What was read next; _END when there is no more or everything stops."""
        while not self.stop.is_set():
            try:
                found = self.loaded.get(timeout=_TICK)
            except queue.Empty:
                late = self._give_up_reading()
                if late is not None:
                    return late
                continue
            if found is _END:
                self.loaded.put(_END)  # for the other lanes, and for the next look
            else:
                self.before.free(self.size(found))
            return found
        return _END

    def next_batch(self) -> list[Any]:
        """What was read next, until the sizes of what is to be worked on reach 1; empty when there is no more."""
        batch: list[Any] = []
        filled = 0.0
        while filled < 1 - 1e-6:
            found = self.next_loaded()
            if found is _END:
                break
            batch.append(found)
            if isinstance(found, Failed | Passed):
                if filled == 0:
                    break
            else:
                filled += self.size(found)
        return batch

    def _give_up_reading(self) -> Failed | None:
        with self.turn:
            if self.reading is None or time.monotonic() - self.reading[1] < self.stall:
                return None
            item, self.reading = self.reading[0], None
            self.reader += 1  # the thread that stands still is no longer in charge
        self.start_reader()
        return Failed(item, f"its files gave no answer for {self.stall:g} seconds; is the disk or network share still there?")

    def work(self, lane: Callable[[list[Any]], list[Any]]) -> None:
        """Take loaded items through a lane until there are no more."""
        first = True
        while True:
            start = time.perf_counter()
            batch = self.next_batch()
            waited = time.perf_counter() - start
            if not batch:
                return
            self.times.add(**{"first" if first else "starved": waited})
            first = False
            items = [found for found in batch if not isinstance(found, Failed | Passed)]
            start = time.perf_counter()
            results = iter(_through(lane, items))
            self.times.add(worked=time.perf_counter() - start, items=len(items))
            start = time.perf_counter()
            for found in batch:
                if not self.behind.take(self.size(found)):
                    return
                self.results.put((found if isinstance(found, Failed | Passed) else next(results), self.size(found)))
            del batch, items, results, found  # a case held here would lie beside the next one's search
            if self.alone:
                self.behind.wait_empty()
            self.times.add(blocked=time.perf_counter() - start)

    def write_all(self) -> None:
        """Write results until the end."""
        while (result := self.results.get()) is not _END:
            if self.stop.is_set():
                continue
            self.write(result[0])
            size, result = result[1], None  # held here it would stay until the next one has come
            self.behind.free(size)


def _through(lane: Callable[[list[Any]], list[Any]], items: list[Any]) -> list[Any]:
    if not items:
        return []
    try:
        return lane(items)
    except FAULTS as error:
        if len(items) == 1:
            return [_failed(items[0], error)]
    return [result for item in items for result in _through(lane, [item])]


def _failed(item: Any, error: Exception) -> Failed:
    if isinstance(error, OSError) and error.errno in FULL:
        return Failed(item, f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}", full=True)
    return Failed(item, f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def _join(thread: threading.Thread) -> None:
    while thread.is_alive():  # in short waits, so that an interrupt gets through
        thread.join(_TICK)
