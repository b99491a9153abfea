"""From a PyTorch module to a functional `torch.export` graph of operations that the interpreter knows."""

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quam_jax.networks.graph.run import operation_of

# nodes that compute nothing
IGNORED = ("_assert_scalar", "_assert_tensor_metadata", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size")
TRAINING = ("_native_batch_norm_legit_functional", "_batch_norm_with_update_functional", "native_dropout", "rrelu_with_noise")
PASSES = 4
PATIENCE = 180


def import_torch() -> Any:
    """The torch package; ValueError with what to do without it."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "importing a torch.export graph needs PyTorch, got none installed; "
            "pip install 'quam_jax[torch]' (using the converted model does not)"
        ) from error
    return torch


@contextlib.contextmanager
def one_line(name: str) -> Iterator[None]:
    """Make one line of whatever PyTorch or a graph that nobody foresaw raises inside: networks fail in many ways."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"{name}: cannot be imported as a graph ({type(error).__name__}: {first_line(error)[:300]}); the whole trace: "
            "quam-jax -v; a network that is exported in eval(), in float32 and on one image batch is the simplest"
        ) from error


@contextlib.contextmanager
def in_eval_mode(module: Any) -> Iterator[None]:
    """Put a module and its children into eval mode for a while."""
    training = {name: child.training for name, child in module.named_modules()}
    module.eval()
    try:
        yield
    finally:
        for name, child in module.named_modules():
            child.training = training[name]


def export_module(module: Any, example: Any, *, dynamic: bool | str) -> Any:
    """The exported program of a module in eval mode, with as many free sizes as it allows.

    With `dynamic` batch and space are free where nothing in the module fixes them; if PyTorch cannot express that, or not in
    PATIENCE seconds (window attention), only the batch; if not even that, nothing. `dynamic="batch"` starts at the second
    and `dynamic=False` at the third. Raises ValueError with the first line of what PyTorch says if it cannot export the
    module at all.
    """
    torch = import_torch()
    if dynamic not in (True, False, "batch"):
        raise ValueError(f"dynamic: expected True, False or 'batch', got {dynamic!r}")
    if dynamic and example.shape[0] == 1:
        example = torch.cat([example, example])  # a length of one would be taken for a constant
    auto = torch.export.Dim.AUTO
    attempts: list[Any] = [({0: auto, **dict.fromkeys(range(2, example.ndim), auto)},), ({0: auto},), None]
    failure: Exception | None = None
    for shapes in attempts[{True: 0, "batch": 1, False: 2}[dynamic] :]:
        try:
            with (
                _patience(module) if shapes is not None and len(shapes[0]) > 1 else contextlib.nullcontext(),
                in_eval_mode(module),
                torch.no_grad(),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                return torch.export.export(module, (example,), dynamic_shapes=shapes)
        except Exception as error:  # the exporter raises many kinds; the edge needs one clear line
            failure = failure or error
    raise ValueError(f"{type(module).__name__}: PyTorch cannot export it: {first_line(failure)}") from failure


@contextlib.contextmanager
def _patience(module: Any) -> Iterator[None]:
    """Raise TimeoutError where a submodule is entered more than PATIENCE seconds from now."""
    end = time.monotonic() + PATIENCE

    def check(_module: Any, _inputs: Any) -> None:
        if time.monotonic() > end:
            raise TimeoutError(f"no export with free sides in {PATIENCE} s")

    handles = [child.register_forward_pre_hook(check) for child in module.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def known_operations(program: Any) -> Any:
    """The exported program without in-place operations, and with those that we lack decomposed where PyTorch can.

    Convolutions, interpolation, attention and the like stay whole, so that they run in their fast forms.
    """
    torch = import_torch()
    guards = getattr(program, "_guards_code", ())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = program.run_decompositions({})
        table = torch.export.default_decompositions()
        for _ in range(PASSES):
            unknown = {node.target for node in program.graph.nodes if node.op == "call_function" and is_unknown(node.target)}
            chosen = {target: table[target] for target in unknown if target in table}
            if not chosen:
                break
            program = program.run_decompositions(chosen)
    program._guards_code = guards  # which decomposing forgets
    return program


def is_unknown(target: Any) -> bool:
    """Whether an ATen operation of a graph is neither known to the interpreter nor without effect."""
    packet = getattr(target, "_overloadpacket", None)
    if packet is None:
        return False
    name = packet.__name__
    return (
        name not in IGNORED
        and name != "_native_batch_norm_legit_no_training"
        and operation_of(name, target._overloadname) is None
    )


def is_training(node: Any) -> bool:
    """Whether a node of a graph computes what only training does: batch statistics that are kept, or dropped values."""
    name = node.target._overloadpacket.__name__
    if name in ("dropout", "feature_dropout", "alpha_dropout"):
        return len(node.args) > 2 and node.args[2] is True
    if name in ("native_batch_norm", "batch_norm", "rrelu"):
        return any(a is True for a in node.args[3:6])
    return name in TRAINING


def select_output(structure: Any, choice: str | int | None) -> Any:
    """The logits in what a module returns.

    A tensor is itself. A mapping gives the entry `choice`, by default `out`, `logits` or its only one; a tuple or list gives
    the entry `choice`, by default the first. Raises ValueError otherwise.
    """
    while not _is_leaf(structure):
        if hasattr(structure, "keys"):
            keys = list(structure.keys())
            default = next((k for k in ("out", "logits") if k in keys), keys[0] if len(keys) == 1 else None)
            key = choice if isinstance(choice, str) else default
            if key not in keys:
                raise ValueError(
                    f"output: the network returns {', '.join(map(str, keys))}; "
                    f"expected a choice of one (--output, in Python output=...), got {choice!r}"
                )
            structure = structure[key]
        elif isinstance(structure, list | tuple) and structure:
            index = choice if isinstance(choice, int) else 0
            if not -len(structure) <= index < len(structure):
                raise ValueError(f"output: the network returns {len(structure)} values, got the choice {index}")
            structure = structure[index]
        else:
            raise ValueError(f"output: expected a tensor, a mapping or a tuple, got {type(structure).__name__}")
        choice = None
    return structure


def choose_output(structure: Any, choice: str | int | None, sides: Sequence[int]) -> tuple[str | int | None, str]:
    """Which of several values are the logits, and what is told of it.

    Of a tuple without a choice the first one of the image's sides is taken, else the first: under deep supervision that of full
    resolution, wherever it stands. ValueError for a choice where there is none.
    """
    if isinstance(structure, list | tuple) and isinstance(choice, str) and choice.lstrip("-").isdigit():
        choice = int(choice)
    if _is_leaf(structure) and choice is not None:
        raise ValueError(f"output: the network returns one tensor; expected no choice, got {choice!r}")
    if _is_leaf(structure) or (not hasattr(structure, "keys") and len(structure) == 1):
        return choice, ""
    if hasattr(structure, "keys"):
        names = [str(key) for key in structure]
        chosen = choice if isinstance(choice, str) else next((k for k in ("out", "logits") if k in names), choice)
    else:
        names = [str(n) for n in range(len(structure))]
        full = [n for n, v in enumerate(structure) if _is_leaf(v) and tuple(v.shape[2:]) == tuple(sides)]
        chosen = choice if choice is not None else (full or [0])[0]
    if len(names) < 2 or chosen is None:
        return chosen, ""
    return chosen, f"the network returns {len(names)} values ({', '.join(names)}): {chosen} is taken; another: --output"


def _is_leaf(value: Any) -> bool:
    torch = import_torch()
    return isinstance(value, torch.Tensor | torch.fx.Node)


def output_structure(program: Any) -> Any:
    """What a graph returns, as the module would, with graph nodes in place of tensors."""
    torch = import_torch()
    (returned,) = next(n for n in reversed(program.graph.nodes) if n.op == "output").args
    kinds = program.graph_signature.output_specs
    own = [node for node, spec in zip(returned, kinds, strict=True) if spec.kind.name == "USER_OUTPUT"]
    return torch.utils._pytree.tree_unflatten(own, program.call_spec.out_spec)


def tensors(program: Any) -> Mapping[str, Any]:
    """Parameters, buffers and constants by name."""
    return {**program.constants, **program.state_dict}


def first_line(error: BaseException | None) -> str:
    """The first line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
