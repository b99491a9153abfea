"""From what a checkpoint holds to one flat state_dict: wrappers, prefixes, metadata.

Training code puts the weights under many names. The choice is by a fixed preference (`WRAPPERS`, first match
wins, again inside what it finds); otherwise the only entry with tensors is taken if its names are already
dotted, and else nested dictionaries are joined with dots. Optimisers, schedulers and the like never count as
weights.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .records import ForeignName, NoEntry, NumpyArray, Opaque, Tensor, TorchDtype, Unreadable, numpy_values, quote

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "network_weights",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
    # averaged weights come last: they are chosen only where a file holds no others
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "params_ema",
    "ema",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_AUXILIARY = re.compile(r"^opt$|optim|sched|scaler|rng|random|callback|^loops$|^logging$")
_DEEPEST = 100
_MOST_NODES = 2_000_000
_MOST_NAMES = 200_000
_SMALL_ARRAY = 64  # elements; larger arrays among the metadata are described, not listed


def locate(root: Any, key: str | None = None) -> tuple[Any, list[str]]:
    """Return the node that holds the state_dict and the wrapper keys that lead to it.

    `key` names the way, with "/" between keys. Raises ValueError if there is no such way or no tensor.
    """
    if key is not None:
        node = root
        for part in key.split("/"):
            entries = _entries(node)
            if entries is None or part not in entries:
                shown = ", ".join(quote(name) for name in list(entries or ())[:10])
                raise NoEntry(f"no entry {quote(part)} of the wanted {quote(key)}; there are: {shown or 'none'}")
            node = entries[part]
        if not _holds_tensors(node):
            raise ValueError(f"the entry {quote(key)} holds no tensors")
        return node, key.split("/")
    if not _holds_tensors(root):
        entries = _entries(root)
        shown = "" if entries is None else ": its keys are " + ", ".join(quote(name) for name in list(entries)[:10])
        raise ValueError(f"holds no state_dict, expected a dictionary of tensors{shown or ', got ' + quote(root)}")
    node = root
    path: list[str] = []
    while not _is_module(node) and len(path) < _DEEPEST:
        entries = _entries(node) or {}
        inner = next((name for name in WRAPPERS if _holds_tensors(entries.get(name))), None)
        if inner is None and not any(_is_tensor(value) for value in entries.values()):
            inside = [name for name, value in entries.items() if _is_weights(name, value)]
            if len(inside) == 1 and _is_wrapped(entries[inside[0]]):
                inner = inside[0]
        if inner is None:
            break
        path.append(str(inner))
        node = entries[inner]
    return node, path


def others(root: Any, path: list[str]) -> tuple[str, ...]:
    """The keys of dictionaries of tensors beside those that lead to the state_dict, as `locate` takes them."""
    found: list[str] = []
    node = root
    for depth, part in enumerate(path):
        entries = _entries(node) or {}
        found += ["/".join([*path[:depth], str(n)]) for n, v in entries.items() if n != part and _is_weights(n, v)]
        node = entries[part]
    return tuple(found)


def flatten(node: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of a node by dotted name, in file order, and the rest as plain values.

    Raises ValueError if two ways lead to one name.
    """
    _check_count(node)
    tensors: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in _walk(node, ""):
        if not _is_tensor(value):
            rest[name] = plain(value)
        elif name in tensors:
            raise ValueError(f"the name {quote(name)} occurs twice")
        else:
            tensors[name] = value
    if not tensors:
        raise ValueError("holds no tensors")
    return tensors, rest


def strip_prefixes(names: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the same mapping without the prefixes that every name has, and those prefixes joined."""
    stripped, joined = dict(names), ""
    while True:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) and name != p for name in stripped)), None)
        if prefix is None or not stripped:
            return stripped, joined
        stripped = {name.removeprefix(prefix): value for name, value in stripped.items()}
        joined += prefix


def metadata_of(root: Any, path: list[str]) -> dict[str, Any]:
    """Return everything of a checkpoint but the chosen weights, as numbers, text and containers of them."""
    found: dict[str, Any] = {}
    node, target = root, found
    for part in path:
        entries = _entries(node) or {}
        for name, value in entries.items():
            if name != part:
                target[name if isinstance(name, str) else str(plain(name))] = plain(value)
        node = entries[part]
        if part != path[-1]:
            target = target.setdefault(part, {})
    return found


def plain(value: Any) -> Any:
    """Return a value out of a file as plain Python; large arrays and tensors become a short description.

    An object of an unknown class becomes a dictionary: its name under "class", and what the file held for it.
    Cycles, and parts that would be too deep or, for sharing their parts, too large, are described too.
    """
    return _Plain().convert(value, 0)[0]


class _Plain:
    """Converts every container once; `done` keeps what it became and how many values that is, written out."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[Any, int]] = {}

    def convert(self, value: Any, depth: int) -> tuple[Any, int]:
        if not isinstance(value, dict | list | tuple | Opaque) or isinstance(value, TorchDtype):
            return _leaf(value), 1
        if id(value) in self.done:
            return self.done[id(value)]
        self.done[id(value)] = (describe(value), 1)  # stands while its parts are converted: a cycle ends here
        if depth < _DEEPEST:
            converted, size = self.container(value, depth + 1)
            if size <= _MOST_NODES:
                self.done[id(value)] = (converted, size)
        return self.done[id(value)]

    def container(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, Opaque):
            parts = {
                "args": value.args,
                "state": value.state,
                "items": value.items,
                "elements": value.elements,
            }
            converted, size = self.container({name: part for name, part in parts.items() if part}, depth)
            return {"class": value.name, **converted}, size
        found = [self.convert(part, depth) for part in (value.values() if isinstance(value, dict) else value)]
        size = 1 + sum(count for _, count in found)
        parts_ = [part for part, _ in found]
        if isinstance(value, dict):
            return {_plain_key(key): part for key, part in zip(value, parts_, strict=True)}, size
        return (parts_ if isinstance(value, list) else tuple(parts_)), size


def _leaf(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    if isinstance(value, TorchDtype):
        return f"torch.{value.name}"
    return _plain_array(value) if isinstance(value, NumpyArray) else describe(value)


def _plain_key(key: Any) -> Any:
    if isinstance(key, tuple) and not isinstance(key, TorchDtype):
        return tuple(_plain_key(part) for part in key)
    return key if isinstance(key, str | int | float | bytes | None) else describe(key)


def describe(value: Any) -> str:
    """Return a short text in place of a value that is not kept."""
    if isinstance(value, Tensor):
        return f"<tensor {value.dtype} {list(value.shape)}>"
    if isinstance(value, ForeignName):
        return f"<{value.name}>"
    if isinstance(value, Opaque):
        return f"<{value.name} object>"
    return f"<{type(value).__name__}>"


def _plain_array(array: NumpyArray) -> Any:
    try:
        values = numpy_values(array)
    except ValueError:
        return "<numpy array of objects>"
    if values.ndim == 0 or values.size <= _SMALL_ARRAY:
        return values.tolist()
    return f"<array {values.dtype} {list(values.shape)}>"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | Unreadable) or (isinstance(value, NumpyArray) and value.shape != ())


def _is_module(node: Any) -> bool:
    """Whether a record is a whole pickled torch.nn.Module."""
    state = node.state if isinstance(node, Opaque) else None
    return isinstance(state, dict) and isinstance(state.get("_modules"), dict) and "_parameters" in state


def _entries(node: Any) -> dict[Any, Any] | None:
    """The named parts of a node: a dictionary's items, a module's parameters, buffers and submodules."""
    if isinstance(node, dict):
        return node
    if not isinstance(node, Opaque):
        return None
    if not _is_module(node):
        return node.items or None
    skipped = node.state.get("_non_persistent_buffers_set")
    entries: dict[Any, Any] = {}
    for group in ("_parameters", "_buffers", "_modules"):
        members = node.state.get(group)
        for name, value in members.items() if isinstance(members, dict) else ():
            if value is not None and not (group == "_buffers" and isinstance(skipped, list) and name in skipped):
                entries[name] = value
    return entries


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in (_entries(node) or {}).items():
        if not isinstance(key, str | int) and (_is_tensor(value) or _holds_tensors(value)):
            raise ValueError(f"a tensor name of kind {type(key).__name__}, expected text")
        name = f"{prefix}{key if isinstance(key, str | int) else plain(key)}"
        if not _is_tensor(value) and _is_weights(key, value):
            yield from _walk(value, f"{name}.")
        else:
            yield name, value


def _is_weights(name: Any, value: Any) -> bool:
    auxiliary = isinstance(name, str) and _AUXILIARY.search(name.lower()) is not None
    return not auxiliary and _holds_tensors(value)


def _is_wrapped(node: Any) -> bool:
    """Whether a node is a state_dict or a wrapper of one, and not one layer of a nested dictionary."""
    entries = _entries(node) or {}
    dotted = any(isinstance(name, str) and "." in name for name in entries)
    return dotted or _is_module(node) or any(_holds_tensors(entries.get(name)) for name in WRAPPERS)


def _holds_tensors(node: Any) -> bool:
    """Whether a node is a dictionary with a tensor somewhere inside; shared parts are visited once."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        for value in (_entries(current) or {}).values():
            if _is_tensor(value):
                return True
            if isinstance(value, dict | Opaque):
                waiting.append(value)
    return False


def _check_count(node: Any) -> None:
    """Refuse dictionaries that hold themselves, or share parts until there are names without number."""
    counts: dict[int, int] = {}

    def count(current: Any, depth: int) -> int:
        if counts.setdefault(id(current), -1) > 0:
            return counts[id(current)]
        if depth > _DEEPEST:
            raise ValueError(f"dictionaries nested more than {_DEEPEST} deep, or holding themselves")
        total = 1
        for key, value in (_entries(current) or {}).items():
            total += count(value, depth + 1) if not _is_tensor(value) and _is_weights(key, value) else 1
        counts[id(current)] = total
        return total

    if count(node, 0) > _MOST_NAMES:
        raise ValueError(f"holds more than {_MOST_NAMES} names")
