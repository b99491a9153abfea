"""What a pickle opcode may do: read the stream, move values on a stack, and build plain values or inert
records.

`call` is the only place where a function runs on behalf of a file, and it runs none but the `Allowed` ones of
`allow_list.py`.
"""

import struct
from collections.abc import Callable
from typing import Any

from .records import Budget, ForeignName, NumpyArray, NumpyDtype, Opaque, Tensor, quote

LONGEST_LINE = 10_000


class Allowed:
    """A function of ours in place of an allow-listed global; it gets the arguments and the memory budget."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Callable[[tuple[Any, ...], Budget], Any]) -> None:
        self.name = name
        self.build = build


class Machine:
    """The stack, the memo and the position of one pickle; see `pickle_machine.unpickle`."""

    def __init__(
        self,
        data: bytes,
        start: int = 0,
        *,
        budget: Budget,
        resolve: Callable[[str, str], Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data = data
        self.position = start
        self.budget = budget
        self.resolve = resolve
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    # Reading the stream

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        begin = self.position
        if count < 0 or count > len(self.data) - begin:
            raise ValueError(f"truncated: the pickle wants {count} bytes at byte {begin}, the file ends before")
        self.position = begin + count
        return self.data[begin : self.position]

    def number(self, form: str) -> Any:
        """The next fixed-size number, in the notation of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        """The bytes up to the next line feed."""
        begin = self.position
        end = self.data.find(b"\n", begin, begin + LONGEST_LINE)
        if end < 0:
            raise ValueError(f"malformed pickle: no line ends within {LONGEST_LINE} bytes after byte {begin}")
        self.position = end + 1
        return self.data[begin:end]

    # The stack

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the top value, never from below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError(f"malformed pickle: the stack is empty before byte {self.position}")
        return self.stack.pop()

    def top(self) -> Any:
        """The top value, left in its place."""
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_to_mark(self) -> list[Any]:
        """The values above the last mark."""
        if not self.marks:
            raise ValueError(f"malformed pickle: no mark before byte {self.position}")
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def recall(self, index: int) -> None:
        """Push a value remembered before."""
        if index not in self.memo:
            raise ValueError(f"malformed pickle: nothing is remembered under {index}")
        self.stack.append(self.memo[index])


def put_items(target: Any, values: list[Any]) -> None:
    """Set alternating keys and values in a dict or a record of an unknown mapping."""
    if len(values) % 2:
        raise ValueError("malformed pickle: a key without a value")
    mapping = target.items if isinstance(target, Opaque) else target
    if type(mapping) is not dict:
        raise ValueError(f"malformed pickle: items set in {quote(target)}")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not is_key(key):
            raise ValueError(f"a dictionary key of kind {type(key).__name__} is not supported")
        mapping[key] = value


def is_key(key: Any) -> bool:
    """Whether hashing a key is cheap: nested tuples and crafted integers can make it cost without bound."""
    if type(key) is tuple:
        return len(key) <= 16 and all(type(part) is not tuple and is_key(part) for part in key)
    if type(key) is int:
        return -(2**60) < key < 2**60
    if key is None or type(key) in (str, bool, float, bytes):
        return True
    return type(key) in (Tensor, Opaque, ForeignName, NumpyArray)  # hashed by identity


def append_all(target: Any, values: list[Any]) -> None:
    """Extend a list or a record of an unknown sequence."""
    elements = target.elements if isinstance(target, Opaque) else target
    if type(elements) is not list:
        raise ValueError(f"malformed pickle: elements appended to {quote(target)}")
    elements.extend(values)


def call(function: Any, arguments: Any, budget: Budget) -> Any:
    """Carry out a reduction: ours for an allow-listed global, a record for an unknown one."""
    if type(arguments) is not tuple:
        raise ValueError("malformed pickle: arguments that are not a tuple")
    if type(function) is Allowed:
        return function.build(arguments, budget)
    if type(function) is ForeignName:
        return Opaque(function.name, arguments)
    raise ValueError(f"refused: the pickle calls {quote(function)}, which is not a known function")


def set_state(target: Any, state: Any) -> None:
    """Give a state to a record; the attributes of a dictionary (a state_dict's `_metadata`) are dropped."""
    if type(target) is Opaque:
        target.state = state
    elif type(target) is NumpyDtype:
        if type(state) is not tuple or len(state) < 7 or type(state[1]) is not str or type(state[5]) is not int:
            raise ValueError("malformed pickle: the state of a numpy dtype")
        target.order, target.itemsize = state[1], state[5]
    elif type(target) is NumpyArray:
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("malformed pickle: the state of a numpy array")
        _, shape, dtype, fortran, data = state
        if type(data) is str:  # Python 2 wrote bytes as text
            data = data.encode("utf-8", "surrogateescape")
        if type(shape) is not tuple or type(dtype) is not NumpyDtype:
            raise ValueError("malformed pickle: the state of a numpy array")
        target.shape, target.dtype, target.fortran = shape, dtype, bool(fortran)
        target.data = data if type(data) is bytes else None
    elif type(target) not in (dict, Tensor):
        raise ValueError(f"malformed pickle: a state for {quote(target)}")
