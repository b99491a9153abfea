"""The image sizes for which an exported graph is valid: PyTorch's guards as conditions, and multiples from trying them."""

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any

from quam_jax.networks.graph.arithmetic import condition_text, evaluate_size, read_condition
from quam_jax.networks.graph.program import SPACE, bind_sizes, parse
from quam_jax.networks.graph.run import Blank, abstract_sizes

LONGEST = 2**16  # an example's side, of which every multiple is tried
_SIZE = re.compile(r"L\['[^']+'\](?:\[[^\]]+\])*\.size\(\)\[(\d+)\]")


def free_sizes(program: Any) -> tuple[tuple[int | str, ...], tuple[str, ...]]:
    """The image's sizes, letters where they are free, and the conditions on them.

    Raises ValueError if the network takes more than one input, or a condition is not arithmetic.
    """
    graph_inputs = [s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    if len(graph_inputs) != 1:
        raise ValueError(f"expected a network of one input, got {len(graph_inputs)}")
    value = next(n for n in program.graph.nodes if n.name == graph_inputs[0]).meta["val"]
    letters = ("b", "i", *SPACE[5 - value.ndim :])
    sizes = tuple(int(n) if isinstance(n, int) else letter for n, letter in zip(value.shape, letters, strict=True))
    conditions: dict[str, None] = {}
    symbols: dict[str, str] = {}
    for n, letter in zip(value.shape, letters, strict=True):
        if isinstance(n, int):
            continue
        name = str(n.node.expr)
        if name in symbols:
            conditions[f"{letter} == {symbols[name]}"] = None
        symbols.setdefault(name, letter)
    for guard in getattr(program, "_guards_code", ()):
        text = _SIZE.sub(lambda m: str(sizes[int(m[1])]), guard)
        condition = read_condition(text)
        if not any(isinstance(n, ast.Name) and n.id in sizes for n in ast.walk(condition)):
            continue
        if "max(1, " in text:  # about strides, which there are none of here
            continue
        evaluate_size(text, {n: 64 for n in sizes if isinstance(n, str)})
        conditions[condition_text(condition)] = None
    for symbol, limits in program.range_constraints.items():
        letter = symbols.get(str(symbol))
        if letter not in (None, "b"):
            # a lower bound of two only says that PyTorch never looks at lengths of one
            conditions |= {f"{letter} >= {int(limits.lower)}": None} if int(limits.lower) > 2 else {}
            upper = str(limits.upper)
            conditions |= {f"{letter} <= {upper}": None} if upper.isdigit() else {}
    return sizes, tuple(conditions)


def fix_sizes(
    sizes: Sequence[int | str], checks: Sequence[str], sides: Sequence[int | None]
) -> tuple[tuple[int | str, ...], tuple[str, ...]]:
    """Sizes and conditions with some spatial sides given their only length."""
    known = {str(n): str(side) for n, side in zip(sizes[2:], sides, strict=True) if side is not None}
    filled = [re.sub(r"\b[dhw]\b", lambda m: known.get(m[0], m[0]), check) for check in checks]
    return (
        (*sizes[:2], *(n if side is None else side for n, side in zip(sizes[2:], sides, strict=True))),
        tuple(check for check in filled if re.search(r"\b[bdhw]\b", check)),
    )


def find_multiples(
    lines: tuple[str, ...],
    weights: dict[str, Any],
    example: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For every spatial axis the number that sides must be multiples of, and whether it is fixed (1) or free (0).

    `example` is a shape that works. The least divisor of its side is taken of which all multiples from that side to twice
    it satisfy the graph's conditions, and of which two run through the graph. ValueError for sides above 65536.
    """
    if max(example[2:]) > LONGEST:
        raise ValueError(f"expected an example input with sides up to {LONGEST}, got {list(example)}")
    program = parse(lines)

    def works(shape: Sequence[int], *, thoroughly: bool) -> bool:
        try:
            bind_sizes(program, shape)
            if thoroughly:
                found = abstract_sizes(program, weights, Blank(tuple(shape)), program.nodes)[program.output].shape
                return found[2:] == tuple(shape[2:])
        except ValueError:
            return False
        return True

    multiples, fixed = [], []
    for axis, (size, declared) in enumerate(zip(example[2:], program.sizes[2:], strict=True), start=2):
        chosen = (
            None
            if isinstance(declared, int)
            else _least(
                size,
                lambda m, a=axis, s=size: (
                    all(works(_changed(example, a, n), thoroughly=False) for n in range(s, 2 * s + 1, m))
                    and all(works(_changed(example, a, s + k * m), thoroughly=True) for k in (1, 3))
                ),
            )
        )
        multiples.append(chosen or size)
        fixed.append(int(chosen is None))
    grown = [*example[:2], *(s + m * (1 - f) for s, m, f in zip(example[2:], multiples, fixed, strict=True))]
    if not works(grown, thoroughly=True):
        return tuple(example[2:]), (1,) * len(multiples)
    return tuple(multiples), tuple(fixed)


def _least(size: int, holds: Callable[[int], bool]) -> int | None:
    return next((m for m in range(1, size + 1) if size % m == 0 and holds(m)), None)


def _changed(shape: Sequence[int], axis: int, size: int) -> list[int]:
    return [size if a == axis else n for a, n in enumerate(shape)]
