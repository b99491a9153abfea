"""A function of weights and one image in two parts: what some weights cannot change, and what depends on them.

The function is traced to a jaxpr, calls of `jit` in it are opened, and its equations are sorted by whether they depend on the
moving weights. What the second part takes of the first are the activations in front of the cut.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jc
from jaxtyping import Array

JIT = ("jit", "pjit", "closed_call", "core_call")


class Split(NamedTuple):
    """`front(*weights, image)` gives the activations, `behind(*weights, *activations)` the logits of one image.

    Weights are those of the parameters and of the statistics, each by sorted name; activations have the shapes that one image
    `[1 *space i]` has.
    """

    front: Callable[..., list[Array]]
    behind: Callable[..., list[Array]]
    activations: tuple[tuple[int, ...], ...]


class Traced(NamedTuple):
    """A function as a list of equations: weights by name, the variable of the image and of the logits."""

    weights: dict[str, Any]
    image: Any
    output: Any
    equations: list[Any]
    constants: dict[Any, Any]


def trace(call: Callable[..., Array], params: Mapping[str, Any], stats: Mapping[str, Any], image: Any) -> Traced:
    """The equations of `call(params, stats, image)`; arguments may be shapes and types."""
    closed = jax.make_jaxpr(call)(dict(params), dict(stats), image)
    names = [*(("params", name) for name in sorted(params)), *(("stats", name) for name in sorted(stats))]
    *weights, taken = closed.jaxpr.invars
    constants = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    equations: list[Any] = []
    places = {variable: variable for variable in (*closed.jaxpr.invars, *closed.jaxpr.constvars)}
    _open(closed.jaxpr, places, equations, constants)
    (output,) = closed.jaxpr.outvars
    output = output if isinstance(output, jc.Literal) else places[output]
    return Traced(
        {f"{kind} {name}": v for (kind, name), v in zip(names, weights, strict=True)}, taken, output, equations, constants
    )


def _open(jaxpr: Any, places: dict[Any, Any], equations: list[Any], constants: dict[Any, Any]) -> None:
    """Append the equations of a jaxpr, calls of `jit` opened, with fresh variables; `places` says what a variable became."""

    def there(atom: Any) -> Any:
        return atom if isinstance(atom, jc.Literal) else places[atom]

    for equation in jaxpr.eqns:
        inputs = [there(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if equation.primitive.name in JIT and inner is not None:
            closed = inner if isinstance(inner, jc.ClosedJaxpr) else jc.ClosedJaxpr(inner, ())
            inside = dict(zip(closed.jaxpr.invars, inputs, strict=True))
            for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
                fresh = type(variable)(variable.aval)
                inside[variable], constants[fresh] = fresh, value
            _open(closed.jaxpr, inside, equations, constants)
            for outer, atom in zip(equation.outvars, closed.jaxpr.outvars, strict=True):
                places[outer] = atom if isinstance(atom, jc.Literal) else inside[atom]
            continue
        outputs = [v if isinstance(v, jc.DropVar) else type(v)(v.aval) for v in equation.outvars]
        places.update(zip(equation.outvars, outputs, strict=True))
        equations.append(equation.replace(invars=inputs, outvars=outputs))


def reached(traced: Traced, start: Iterable[Any]) -> set[Any]:
    """The variables that depend on some of them, themselves among them."""
    found = set(start)
    for equation in traced.equations:
        if any(not isinstance(a, jc.Literal) and a in found for a in equation.invars):
            found.update(equation.outvars)
    return found


def last_weights(traced: Traced) -> list[str]:
    """The parameters that the image meets last: from the last kernel (two axes or more) on; empty where there is none."""
    seen = reached(traced, [traced.image])
    carried = {variable: {name} for name, variable in traced.weights.items()}
    order: list[str] = []
    for equation in traced.equations:
        inputs = [atom for atom in equation.invars if not isinstance(atom, jc.Literal)]
        names = [name for atom in inputs for name in sorted(carried.get(atom, ()))]
        if any(atom in seen for atom in inputs):
            order += [name for name in names if name not in order]
        elif names:
            carried.update((variable, set(names)) for variable in equation.outvars)
    kernels = [i for i, name in enumerate(order) if name.startswith("params ") and traced.weights[name].aval.ndim >= 2]
    last = order[kernels[-1] :] if kernels else []
    return [name.removeprefix("params ") for name in last if name.startswith("params ")]


def split(traced: Traced, moving: Iterable[str]) -> Split:
    """Both parts of a traced function; ValueError where the logits do not depend on the moving parameters."""
    names = list(moving)
    moved = reached(traced, [traced.weights[f"params {name}"] for name in names])
    if isinstance(traced.output, jc.Literal) or traced.output not in moved:
        raise ValueError(f"the logits do not depend on {', '.join(names[:3])}")
    seen = reached(traced, [traced.image])
    needed, behind = {traced.output}, []
    activations: dict[Any, None] = {}
    for equation in reversed(traced.equations):
        if not any(v in needed for v in equation.outvars) or _is_frozen(equation, moved, seen):
            continue
        behind.append(equation)
        needed.update(atom for atom in equation.invars if not isinstance(atom, jc.Literal))
    behind.reverse()
    for equation in behind:
        for atom in equation.invars:
            if not isinstance(atom, jc.Literal) and atom in seen and atom not in moved:
                activations[atom] = None
    taken, weights = list(activations), list(traced.weights.values())
    front = _needed_for(traced.equations, taken)
    return Split(
        _function(traced, front, [*weights, traced.image], taken),
        _function(traced, behind, [*weights, *taken], [traced.output]),
        tuple(tuple(variable.aval.shape) for variable in taken),
    )


def _is_frozen(equation: Any, moved: set[Any], seen: set[Any]) -> bool:
    """Whether an equation belongs to the front: it depends on the image and not on what moves."""
    return any(v in seen and v not in moved for v in equation.outvars)


def _needed_for(equations: Sequence[Any], outputs: Iterable[Any]) -> list[Any]:
    needed, found = set(outputs), []
    for equation in reversed(equations):
        if any(v in needed for v in equation.outvars):
            found.append(equation)
            needed.update(atom for atom in equation.invars if not isinstance(atom, jc.Literal))
    return found[::-1]


def _function(traced: Traced, equations: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    used = {atom for equation in equations for atom in equation.invars if not isinstance(atom, jc.Literal)}
    constants = {v: value for v, value in traced.constants.items() if v in used or v in outputs}
    effects = frozenset().union(*(equation.effects for equation in equations))
    debug = jax.make_jaxpr(lambda *xs: xs)(*(0.0 for _ in inputs)).jaxpr.debug_info._replace(
        arg_names=tuple(f"x{i}" for i in range(len(inputs))), result_paths=tuple(f"y{i}" for i in range(len(outputs)))
    )
    jaxpr = jc.Jaxpr(list(constants), list(inputs), list(outputs), list(equations), effects, debug)
    return jc.jaxpr_as_fun(jc.ClosedJaxpr(jaxpr, list(constants.values())))
