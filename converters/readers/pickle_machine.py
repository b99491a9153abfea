"""A pickle interpreter that cannot run anything of the file: no import, no attribute look-up, no foreign
call.

Every opcode is carried out on plain Python values and on the inert records of `records.py`. What makes pickle
dangerous is closed by construction: a global resolves in a fixed table (`allow_list.py`) or becomes a
`ForeignName` label, and a reduction calls an `Allowed` function of ours or, for a label, makes an `Opaque`
record of the arguments. Extension codes and out-of-band buffers are refused, and so are the text opcodes that
only protocol 0 writes, with which torch cannot store tensors. Work and memory are bounded: the number of
opcodes by the file's size, the length of every string by the bytes present. Opcodes as documented in
CPython's `pickletools`.
"""

from collections.abc import Callable
from typing import Any

from .pickle_stack import Machine, append_all, call, put_items, set_state
from .records import Budget

FREE_OPCODES = 2_000_000
BYTES_PER_OPCODE = 32  # a checkpoint has far more bytes for each opcode, most of them in its tensors
LONGEST_INTEGER = 255  # bytes


def unpickle(
    data: bytes,
    start: int = 0,
    *,
    budget: Budget,
    resolve: Callable[[str, str], Any],
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Return the value pickled in `data` from `start` on, and the position after it.

    `resolve` stands for a global by module and name, `persistent` for a persistent id. Raises ValueError on
    anything malformed or refused.
    """
    machine = Machine(data, start, budget=budget, resolve=resolve, persistent=persistent)
    end = len(data)
    for _ in range(FREE_OPCODES + end // BYTES_PER_OPCODE):
        if machine.position >= end:
            raise ValueError("truncated: the pickle ends without its STOP opcode")
        opcode = data[machine.position]
        machine.position += 1
        if opcode == _STOP:
            return machine.pop(), machine.position
        action = _ACTIONS.get(opcode)
        if action is None:
            raise ValueError(f"malformed pickle: unknown opcode 0x{opcode:02x} at byte {machine.position - 1}")
        action(machine)
    raise ValueError("the pickle has more opcodes than a file of this size may have")


def _integer(data: bytes) -> int:
    if len(data) > LONGEST_INTEGER:
        raise ValueError(f"malformed pickle: an integer of {len(data)} bytes")
    return int.from_bytes(data, "little", signed=True)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _python2_text(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _text_integer(machine: Machine) -> None:
    line = machine.line()
    if line in (b"00", b"01"):
        machine.push(line == b"01")
        return
    if len(line) > LONGEST_INTEGER:
        raise ValueError(f"malformed pickle: an integer of {len(line)} digits")
    machine.push(int(line.removesuffix(b"L")))


def _global(machine: Machine) -> None:
    module, name = _text(machine.line()), _text(machine.line())
    machine.push(machine.resolve(module, name))


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError("malformed pickle: a global whose name is not text")
    machine.push(machine.resolve(module, name))


def _object(machine: Machine) -> None:
    values = machine.pop_to_mark()
    if not values:
        raise ValueError("malformed pickle: an object without its class")
    machine.push(call(values[0], tuple(values[1:]), machine.budget))


def _reduce(machine: Machine) -> None:
    arguments = machine.pop()
    machine.push(call(machine.pop(), arguments, machine.budget))


def _new_object_with_keywords(machine: Machine) -> None:
    keywords, arguments = machine.pop(), machine.pop()
    if type(keywords) is not dict or type(arguments) is not tuple:
        raise ValueError("malformed pickle: arguments that are not a tuple and a dictionary")
    machine.push(call(machine.pop(), (arguments, keywords) if keywords else arguments, machine.budget))


def _build(machine: Machine) -> None:
    state = machine.pop()
    set_state(machine.top(), state)


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    put_items(machine.top(), [key, value])


def _set_items(machine: Machine) -> None:
    values = machine.pop_to_mark()
    put_items(machine.top(), values)


def _append(machine: Machine) -> None:
    value = machine.pop()
    append_all(machine.top(), [value])


def _appends(machine: Machine) -> None:
    values = machine.pop_to_mark()
    append_all(machine.top(), values)


def _dict(machine: Machine) -> None:
    mapping: dict[Any, Any] = {}
    put_items(mapping, machine.pop_to_mark())
    machine.push(mapping)


def _persistent(machine: Machine) -> None:
    if machine.persistent is None:
        raise ValueError("malformed pickle: a persistent id where no storage can be")
    machine.push(machine.persistent(machine.pop()))


def _pop_anything(machine: Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _pop_mark(machine: Machine) -> None:
    machine.pop_to_mark()


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def action(machine: Machine) -> None:
        machine.push(tuple([machine.pop() for _ in range(count)][::-1]))

    return action


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


def _fixed(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.number(form))


def _sized(form: str, decode: Callable[[bytes], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(decode(machine.take(machine.number(form))))


def _remember(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.memo.__setitem__(machine.number(form), machine.top())


def _recall(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.recall(machine.number(form))


def _skip(count: int) -> Callable[[Machine], None]:
    def action(machine: Machine) -> None:
        machine.take(count)

    return action


def _refuse(what: str) -> Callable[[Machine], None]:
    def action(machine: Machine) -> None:
        raise ValueError(f"refused: the pickle uses {what}; save the weights again with torch.save of a current PyTorch")

    return action


_STOP = ord(".")
_PROTOCOL_0 = "a text opcode of pickle protocol 0"
_EXTENSION = "an extension code"
_OUT_OF_BAND = "an out-of-band buffer"
_ACTIONS: dict[int, Callable[[Machine], None]] = {
    0x80: _skip(1),  # PROTO
    0x95: _skip(8),  # FRAME
    ord("("): lambda machine: machine.marks.append(len(machine.stack)),
    ord("0"): _pop_anything,
    ord("1"): _pop_mark,
    ord("2"): lambda machine: machine.push(machine.top()),
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("I"): _text_integer,
    ord("L"): _text_integer,
    ord("J"): _fixed("<i"),
    ord("K"): _fixed("<B"),
    ord("M"): _fixed("<H"),
    0x8A: _sized("<B", _integer),
    0x8B: _sized("<i", _integer),
    ord("F"): _refuse(_PROTOCOL_0),
    ord("G"): _fixed(">d"),
    ord("S"): _refuse(_PROTOCOL_0),
    ord("T"): _sized("<i", _python2_text),
    ord("U"): _sized("<B", _python2_text),
    ord("V"): _refuse(_PROTOCOL_0),
    ord("X"): _sized("<I", _text),
    0x8C: _sized("<B", _text),
    0x8D: _sized("<Q", _text),
    ord("B"): _sized("<I", bytes),
    ord("C"): _sized("<B", bytes),
    0x8E: _sized("<Q", bytes),
    0x96: _sized("<Q", bytes),  # BYTEARRAY8
    0x97: _refuse(_OUT_OF_BAND),
    0x98: _refuse(_OUT_OF_BAND),
    ord("]"): lambda machine: machine.push([]),
    ord("a"): _append,
    ord("e"): _appends,
    ord("l"): lambda machine: machine.push(machine.pop_to_mark()),
    ord(")"): _constant(()),
    ord("t"): lambda machine: machine.push(tuple(machine.pop_to_mark())),
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    ord("}"): lambda machine: machine.push({}),
    ord("d"): _dict,
    ord("s"): _set_item,
    ord("u"): _set_items,
    0x8F: lambda machine: machine.push([]),  # EMPTY_SET: a list, so that nothing is hashed
    0x90: _appends,  # ADDITEMS
    0x91: lambda machine: machine.push(tuple(machine.pop_to_mark())),  # FROZENSET
    ord("g"): _refuse(_PROTOCOL_0),
    ord("h"): _recall("<B"),
    ord("j"): _recall("<I"),
    ord("p"): _refuse(_PROTOCOL_0),
    ord("q"): _remember("<B"),
    ord("r"): _remember("<I"),
    0x94: lambda machine: machine.memo.__setitem__(len(machine.memo), machine.top()),
    ord("c"): _global,
    0x93: _stack_global,
    ord("i"): _refuse(_PROTOCOL_0),
    ord("o"): _object,
    0x81: _reduce,  # NEWOBJ: the class stands where the function does
    0x92: _new_object_with_keywords,
    ord("R"): _reduce,
    ord("b"): _build,
    ord("P"): _refuse(_PROTOCOL_0),
    ord("Q"): _persistent,
    0x82: _refuse(_EXTENSION),
    0x83: _refuse(_EXTENSION),
    0x84: _refuse(_EXTENSION),
}
