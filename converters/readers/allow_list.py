"""The globals a checkpoint pickle may name, each mapped to a small function of ours that builds an inert
record.

The table is closed: `resolve` never imports. A name outside it becomes a label (`ForeignName`), so that the
objects around the weights (argparse namespaces, optimisers, whole modules) can be skipped over without being
made. Names that only an attack would use are refused at once for the sake of a clear message; safety does not
rest on that list. What torch writes was read off files saved by torch 1.4 to 2.13; numpy's from
`numpy._core.multiarray`.
"""

from collections.abc import Callable
from typing import Any

from .pickle_stack import Allowed, put_items
from .records import (
    TORCH_DTYPES,
    TYPED_STORAGES,
    UNREADABLE_DTYPES,
    Budget,
    ForeignName,
    NumpyArray,
    NumpyDtype,
    Opaque,
    Storage,
    StorageKind,
    Tensor,
    TorchDtype,
    Unreadable,
    is_count,
    is_shape,
    quote,
)

_HOSTILE_MODULES = frozenset(
    "os posix nt subprocess sys importlib runpy shutil socket ctypes pty code codeop pickle marshal".split()
)
_HOSTILE_BUILTINS = frozenset("eval exec execfile compile __import__ open input breakpoint globals".split())
_RENAMED_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}
BYTES_PER_ENTRY = 100  # of a copied Python container, about


def resolve(module: str, name: str) -> Any:
    """Return what stands for a global; raises ValueError for names that only an attack would use."""
    module = _RENAMED_MODULES.get(module, module)
    if (module, name) in _GLOBALS:
        return _GLOBALS[module, name]
    top = module.split(".")[0]
    if top == "torch":
        if name in TYPED_STORAGES:
            return StorageKind(TYPED_STORAGES[name])
        if module == "torch" and (name in TORCH_DTYPES or name in UNREADABLE_DTYPES):
            return TorchDtype(name)
    if top in _HOSTILE_MODULES or (module == "builtins" and name in _HOSTILE_BUILTINS):
        raise ValueError(f"refused: the pickle names {quote(f'{module}.{name}')}, which no weight file needs")
    return ForeignName(f"{module}.{name}")


def _expect(arguments: tuple[Any, ...], count: int, name: str) -> None:
    if len(arguments) < count:
        raise ValueError(f"malformed pickle: {name} with {len(arguments)} arguments, expected {count}")


def _mapping(arguments: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    given = arguments[0] if arguments else ()
    mapping: dict[Any, Any] = {}
    if type(given) not in (dict, list, tuple):
        raise ValueError(f"malformed pickle: a dictionary made of {quote(given)}")
    budget.take(BYTES_PER_ENTRY * len(given), "a dictionary")
    for pair in given.items() if type(given) is dict else given:
        if type(pair) not in (tuple, list) or len(pair) != 2:
            raise ValueError("malformed pickle: a dictionary made of something else than pairs")
        put_items(mapping, list(pair))
    return mapping


def _default_mapping(arguments: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    return _mapping(arguments[1:], budget)  # the first argument is the factory


def _sequence(arguments: tuple[Any, ...], budget: Budget) -> list[Any]:
    given = arguments[0] if arguments else ()
    if type(given) not in (list, tuple):
        raise ValueError(f"malformed pickle: a sequence made of {quote(given)}")
    budget.take(BYTES_PER_ENTRY * len(given), "a sequence")
    return list(given)


def _encode(arguments: tuple[Any, ...], budget: Budget) -> bytes:
    if not arguments:
        return b""
    text = arguments[0]
    encoding = arguments[1] if len(arguments) > 1 else "utf-8"
    if type(text) is bytes:
        return text
    if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise ValueError(f"malformed pickle: bytes made of {quote(text)}")
    budget.take(4 * len(text), "a byte string")
    return text.encode(encoding)


def _complex(arguments: tuple[Any, ...], budget: Budget) -> complex:
    if len(arguments) != 2 or any(type(part) not in (int, float) for part in arguments):
        raise ValueError("malformed pickle: a complex number")
    return complex(float(arguments[0]), float(arguments[1]))


def _reconstructor(arguments: tuple[Any, ...], budget: Budget) -> Any:
    _expect(arguments, 1, "copyreg._reconstructor")
    cls = arguments[0]
    if type(cls) is Allowed:
        return cls.build((), budget)
    if type(cls) is ForeignName:
        return Opaque(cls.name)
    raise ValueError(f"malformed pickle: an object of class {quote(cls)}")


def _tensor(arguments: tuple[Any, ...], budget: Budget) -> Tensor | Unreadable:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2: storage, offset, size, stride, ..., metadata."""
    _expect(arguments, 4, "a tensor")
    dtype = arguments[0].dtype if type(arguments[0]) is Storage else ""
    metadata = arguments[6] if len(arguments) > 6 else None
    return _strided(arguments, dtype, metadata)


def _tensor_with_dtype(arguments: tuple[Any, ...], budget: Budget) -> Tensor | Unreadable:
    """torch._utils._rebuild_tensor_v3: the storage is untyped, the dtype is the seventh argument."""
    _expect(arguments, 7, "a tensor")
    if type(arguments[6]) is not TorchDtype:
        raise ValueError(f"malformed pickle: a tensor of dtype {quote(arguments[6])}")
    return _strided(arguments, arguments[6].name, arguments[7] if len(arguments) > 7 else None)


def _strided(arguments: tuple[Any, ...], dtype: str, metadata: Any) -> Tensor | Unreadable:
    storage, offset, shape, strides = arguments[:4]
    if type(storage) is not Storage or not is_count(offset) or not is_shape(shape) or not is_shape(strides):
        raise ValueError("malformed pickle: a tensor without storage, offset, shape and strides")
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError(f"malformed pickle: a tensor of {len(shape)} axes with {len(strides)} strides")
    if dtype not in TORCH_DTYPES:
        return Unreadable(f"a tensor of dtype torch.{dtype}, which numpy has not")
    tensor = Tensor(storage, offset, tuple(shape), tuple(strides), dtype=dtype)
    if type(metadata) is dict:
        tensor.conjugate = metadata.get("conj") is True
        tensor.negative = metadata.get("neg") is True
    return tensor


def _first(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """A parameter, or a tensor rebuilt on a device: its data is the first argument."""
    _expect(arguments, 1, "a parameter")
    return arguments[0]


def _typed(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """torch._tensor._rebuild_from_type_v2: function, type, arguments, state."""
    _expect(arguments, 3, "a tensor of a subclass")
    function, _, inner = arguments[:3]
    if type(function) is not Allowed or type(inner) is not tuple:
        raise ValueError(f"refused: the pickle rebuilds a tensor with {quote(function)}")
    if function.build is _typed:
        raise ValueError("malformed pickle: a tensor subclass inside another")
    return function.build(inner, budget)


def _refused(reason: str) -> Callable[[tuple[Any, ...], Budget], Unreadable]:
    return lambda arguments, budget: Unreadable(reason)


def _device(arguments: tuple[Any, ...], budget: Budget) -> str:
    parts = [str(part) for part in arguments[:2] if type(part) is int or (type(part) is str and len(part) <= 32)]
    return ":".join(parts)


def _layout(arguments: tuple[Any, ...], budget: Budget) -> str:
    return arguments[0] if arguments and type(arguments[0]) is str else ""


def _size(arguments: tuple[Any, ...], budget: Budget) -> tuple[int, ...]:
    given = arguments[0] if arguments else ()
    if not is_shape(given):
        raise ValueError("malformed pickle: a torch.Size")
    budget.take(BYTES_PER_ENTRY * len(given), "a torch.Size")
    return tuple(given)


def _load_from_bytes(arguments: tuple[Any, ...], budget: Budget) -> Any:
    raise ValueError("tensors pickled with pickle.dump: save them with torch.save")


def _array(arguments: tuple[Any, ...], budget: Budget) -> NumpyArray:
    """numpy._core.multiarray._reconstruct: an empty array whose state follows."""
    return NumpyArray()


def _dtype(arguments: tuple[Any, ...], budget: Budget) -> NumpyDtype:
    code = arguments[0] if arguments else ""
    if type(code) is bytes:
        code = code.decode("ascii")
    return NumpyDtype(code if type(code) is str else "")


def _scalar(arguments: tuple[Any, ...], budget: Budget) -> NumpyArray:
    _expect(arguments, 2, "a numpy scalar")
    dtype, data = arguments[:2]
    if type(data) is str:  # Python 2 wrote bytes as text
        data = data.encode("utf-8", "surrogateescape")
    if type(dtype) is not NumpyDtype:
        raise ValueError("malformed pickle: a numpy scalar without its dtype")
    return NumpyArray((), dtype, data=data if type(data) is bytes else None)


def _from_buffer(arguments: tuple[Any, ...], budget: Budget) -> NumpyArray:
    """numpy._core.numeric._frombuffer: bytes, dtype, shape, order (pickle protocol 5)."""
    _expect(arguments, 4, "a numpy array")
    data, dtype, shape, order = arguments[:4]
    if type(data) is not bytes or type(dtype) is not NumpyDtype or not is_shape(shape):
        raise ValueError("malformed pickle: a numpy array without bytes, dtype and shape")
    return NumpyArray(tuple(shape), dtype, data=data, fortran=order == "F")


_SPARSE = _refused("a sparse tensor: make it dense with .to_dense() before saving")
_QUANTISED = _refused("a quantised tensor: save the float weights, or .dequantize() it before saving")
_BUILDERS: dict[tuple[str, str], Callable[[tuple[Any, ...], Budget], Any]] = {
    ("collections", "OrderedDict"): _mapping,
    ("collections", "Counter"): _mapping,
    ("collections", "defaultdict"): _default_mapping,
    ("builtins", "dict"): _mapping,
    ("builtins", "set"): _sequence,
    ("builtins", "frozenset"): _sequence,
    ("builtins", "list"): _sequence,
    ("builtins", "bytes"): _encode,
    ("builtins", "bytearray"): _encode,
    ("builtins", "complex"): _complex,
    ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("torch.serialization", "_get_layout"): _layout,
    ("torch.storage", "_load_from_bytes"): _load_from_bytes,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_with_dtype,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch.nn.parameter", "Parameter"): _first,
    ("torch.nn.parameter", "Buffer"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _typed,
    ("torch._utils", "_rebuild_qtensor"): _QUANTISED,
    ("torch._utils", "_rebuild_sparse_tensor"): _SPARSE,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _SPARSE,
    ("torch._utils", "_rebuild_nested_tensor"): _refused("a nested tensor: save plain tensors"),
    ("torch._utils", "_rebuild_wrapper_subclass"): _refused("a tensor of a wrapper class: save plain tensors"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _refused("a tensor of the meta device, which has no values"),
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "dtype"): _dtype,
}
_GLOBALS = {key: Allowed(".".join(key), build) for key, build in _BUILDERS.items()}
