"""Reading a `.pt2` file with PyTorch's own reader, after refusing what could run code.

A `.pt2` archive is JSON and raw tensor bytes, but PyTorch's reader also unpickles parts of it, evaluates size expressions
as Python and looks operations up by name. Archives whose names or expressions are not those of an exported network are
refused, and while the reader works only tensors can be unpickled.
"""

import contextlib
import functools
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from .capture import first_line, import_torch

_TARGETS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+"
    r"|torch\._sym_\w+"
)
_SYMBOL = re.compile(r"Symbol\('[suz]\d+'(, \w+=(True|False))*\)")
_WORDS = re.compile(r"[A-Za-z_]\w*")
_KNOWN = re.compile(
    r"_*[suz]\d*|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|TrueDiv|IntTrueDiv|FloatTrueDiv|ModularIndexing"
    r"|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Where|ToFloat|TruncToInt|CeilToInt|FloorToInt|RoundToInt"
    r"|floor|ceiling|oo|int_oo|True|False|Integer|Rational|Float|Add|Mul|Pow|Equality|Unequality|StrictLessThan"
    r"|LessThan|StrictGreaterThan|GreaterThan|precision"
)
_ALLOWED = re.compile(r"[\w\s+\-*/%(),<>=!&|~]*|-?\d+(\.\d+)?(e-?\d+)?")


def load_exported(path: Path) -> Any:
    """The exported program of a file; ValueError with one line if it cannot be read or could run code."""
    torch = import_torch()
    _refuse_code(path)
    try:
        with _tensors_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # the reader raises many kinds for a damaged file; the edge needs one clear line
        raise ValueError(
            f"{path}: cannot be read as a torch.export archive by PyTorch {torch.__version__}: {first_line(error)}"
        ) from error


def _refuse_code(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".json")]
            documents = {n: json.loads(archive.read(n)) for n in names}
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a file of torch.export.save (a zip archive), got {first_line(error)}") from error
    if not any("/models/" in n for n in names):
        raise ValueError(
            f"{path}: expected a file of torch.export.save with a graph, got an archive without one "
            "(a TorchScript file must be exported again with torch.export; a file of weights ends in .pth)"
        )
    for name, document in documents.items():
        for key, value in _strings(document):
            if key == "target" and not _TARGETS.fullmatch(value) and "/models/" in name and "." in value:
                if value.startswith(("torch", "_operator", "math")):
                    raise ValueError(f"{path}: {name} names {value[:60]!r}, which is no operation of a network")
            plain = _SYMBOL.sub("s0", value)
            if key == "expr_str" and not (
                _ALLOWED.fullmatch(plain) and all(_KNOWN.fullmatch(word) for word in _WORDS.findall(plain))
            ):
                raise ValueError(f"{path}: {name} has the size {value[:60]!r}, which is no arithmetic of sizes")


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _strings(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part, key)
    elif isinstance(value, str):
        yield key, value


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Let PyTorch unpickle tensors and nothing else."""
    torch = import_torch()
    safe = functools.partial(_load_safely, torch.load)

    def refuse(*_: Any, **__: Any) -> Any:
        raise pickle.UnpicklingError("the archive holds a pickled object that is no tensor")

    level = logging.getLogger("torch.export").level
    with (
        mock.patch.object(torch, "load", safe),
        mock.patch.object(pickle, "loads", refuse),
        mock.patch.object(torch._C, "_pickle_load_obj", refuse, create=True),
    ):
        logging.getLogger("torch.export").setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logging.getLogger("torch.export").setLevel(level)


def _load_safely(load: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
    return load(file, *args, **{**kwargs, "weights_only": True})
