"""Weight files without PyTorch: checkpoints, safetensors, numpy archives and Keras HDF5 to one record.

The format is told by the file's content, never by its name. Nothing in a file is ever run, and no size that a
file declares is believed: what is asked for must be there before memory is taken.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import aliases, state
from .archive import Archive, Source
from .keras_file import MAGIC as HDF5_MAGIC
from .keras_file import read_keras
from .npz_file import is_npz, read_npz
from .records import NoEntry, Unreadable, quote
from .safetensors_file import is_safetensors, read_safetensors
from .torch_file import LegacyFile, TorchFile, ZipFile

__all__ = ["NoEntry", "Weights", "read_weights"]

_LONGEST_MESSAGE = 400
_PICKLE = re.compile(rb"\x80[\x02-\x05]")  # its protocol follows; torch.save writes the second
_ONNX = re.compile(rb"\x08[\x01-\x20](\x12.|\x1a.|\x3a)", re.DOTALL)  # ModelProto: ir_version, then producer or graph


class Weights(NamedTuple):
    """The content of one weight file.

    `tensors`: state_dict name -> array in its original dtype (bfloat16, float8: ml_dtypes), native order.
    `aliases`: name dropped -> name kept, for tensors stored under several names.
    `wrapper`: keys that led to the state_dict, joined by "/"; "" if the file is one.
    `metadata`: the rest as numbers, text and containers; tensors and larger arrays are only described.
    `prefix`: what was cut from the front of every name, such as "module."; "" if nothing.
    `others`: keys of other dictionaries of tensors beside the chosen one, but for optimisers and the like.
    """

    tensors: dict[str, np.ndarray[Any, Any]]
    aliases: dict[str, str]
    wrapper: str
    metadata: dict[str, Any]
    prefix: str = ""
    others: tuple[str, ...] = ()


def read_weights(path: str | Path, *, key: str | None = None) -> Weights:
    """Read a weight file (.pth .pt .ckpt .safetensors .npz .h5) without running anything in it.

    `key` picks one of several state_dicts in a checkpoint, as `Weights.wrapper` would show it (say "ema");
    without it the order of `state.WRAPPERS` decides. The arrays are the caller's own, whatever happens to the
    file. Raises ValueError with one line that begins with the path, NoEntry where there is nothing under the `key`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError("is a folder, expected a weight file")
        size = path.stat().st_size
        with path.open("rb") as stream:
            return _read(Source(path, stream, size), key)
    except (ValueError, OSError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(reason.split())
        if len(reason) > _LONGEST_MESSAGE:
            reason = f"{reason[:_LONGEST_MESSAGE]}..."
        raise (NoEntry if isinstance(error, NoEntry) else ValueError)(f"{path}: {reason}") from error


def _read(source: Source, key: str | None) -> Weights:
    head = source.read_bytes(0, min(source.size, 512), "the file")
    if not head:
        raise ValueError("is empty")
    if is_safetensors(head, source.size):  # whose first bytes are a length, and may be anything
        if key is not None:
            raise NoEntry(f"is not a PyTorch checkpoint, so it has no entry {quote(key)}")
        return _from_arrays(*read_safetensors(source))
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _read_archive(source, key)
    if _PICKLE.match(head) or head.startswith(b"L119547037146038801333356"):
        return _from_torch(LegacyFile(source), key)
    if head.startswith(HDF5_MAGIC):
        if key is not None:
            raise NoEntry(f"is not a PyTorch checkpoint, so it has no entry {quote(key)}")
        tensors, metadata, wrapper = read_keras(source)
        return _from_arrays(tensors, metadata, wrapper)
    raise ValueError(_unknown(head))


def _read_archive(source: Source, key: str | None) -> Weights:
    archive = Archive(source)
    names = archive.members
    pickles = [name for name in names if name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)]
    folder = pickles[0].removesuffix("data.pkl") if pickles else ""
    if f"{folder}constants.pkl" in names or any(name.startswith(f"{folder}code/") for name in names):
        raise ValueError(
            "is a TorchScript archive, expected weights: save them with torch.save(torch.jit.load(file).state_dict(), other_file)"
        )
    if any("exported_program" in name or name.endswith(("archive_format", "models/model.json")) for name in names):
        raise ValueError("is a program of torch.export (.pt2), expected weights: a graph is read where its name ends in .pt2")
    if len(pickles) > 1:
        raise ValueError("holds more than one data.pkl")
    if pickles:
        return _from_torch(ZipFile(source, archive, folder), key)
    if is_npz(archive):
        if key is not None:
            raise NoEntry(f"is not a PyTorch checkpoint, so it has no entry {quote(key)}")
        return _from_arrays(*read_npz(archive))
    if "model.weights.h5" in names:
        raise ValueError("is a .keras archive, expected weights: unpack it and give its model.weights.h5")
    shown = ", ".join(quote(name) for name in list(names)[:3])
    raise ValueError(f"is a zip archive of neither PyTorch nor numpy (members: {shown or 'none'})")


def _from_torch(file: TorchFile, key: str | None) -> Weights:
    node, path = state.locate(file.root, key)
    found, rest = state.flatten(node)
    found, prefix = state.strip_prefixes(found)
    refused = [(name, tensor) for name, tensor in found.items() if isinstance(tensor, Unreadable)]
    if refused:
        name, tensor = refused[0]
        raise ValueError(f"{quote(name)} is {tensor.reason}" + (f" ({len(refused)} of them)" if refused[1:] else ""))
    shared = aliases.same_bytes({name: getattr(tensor, "identity", None) for name, tensor in found.items()})
    tensors = file.read_tensors((name, tensor) for name, tensor in found.items() if name not in shared)
    metadata = {**rest, **state.metadata_of(file.root, path)}
    return _without_twins(Weights(tensors, shared, "/".join(path), metadata, prefix, state.others(file.root, path)))


def _from_arrays(tensors: dict[str, np.ndarray[Any, Any]], metadata: dict[str, Any], wrapper: str = "") -> Weights:
    if not tensors:
        raise ValueError("holds no tensors")
    tensors, prefix = state.strip_prefixes(tensors)
    return _without_twins(Weights(tensors, {}, wrapper, metadata, prefix))


def _without_twins(weights: Weights) -> Weights:
    twins = aliases.nnunet_twins(weights.tensors)
    tensors = {name: values for name, values in weights.tensors.items() if name not in twins}
    return weights._replace(tensors=tensors, aliases=aliases.resolve_chains({**weights.aliases, **twins}))


_ELSEWHERE = "give the .pth of the PyTorch network that it was made of, or export that one with torch.export (.pt2)"


def _unknown(head: bytes) -> str:
    """Why a file that is none of the known formats is not one of them."""
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "is a web page, expected weights (a download that asked for a login or failed?)"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, expected weights: fetch the file itself with git lfs pull"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return "is a compressed file, expected weights: unpack it first"
    if head[257:262] == b"ustar":
        return "is a tar archive (of torch 0.1?), expected weights: unpack it, or save it with a newer torch"
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite graph, expected weights: {_ELSEWHERE}"
    if _ONNX.match(head):
        return f"is an ONNX graph, expected weights: {_ELSEWHERE}; of an ONNX graph alone onnx2torch makes such a network"
    return f"is none of the known formats (.pth .pt .ckpt .safetensors .npz .h5); it begins with {head[:8]!r}"
