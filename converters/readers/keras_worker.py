"""A script that copies the numeric datasets of one HDF5 file into a safetensors file.

It runs in a process of its own, because the HDF5 library can loop, crash or ask for any amount of memory on a
damaged file. What could reach outside the file (external links, external or virtual storage, filters that are
plugins) is refused, and no dataset is copied that is larger than the bytes present allow. It imports nothing
of this package.

Use: keras_worker.py SOURCE TARGET. Exit code 0, or 2 with one line on stderr.
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

WEIGHT_GROUP = "model_weights"  # where a whole saved model keeps what a file of weights has at its top
OPTIMISER_GROUPS = frozenset({"optimizer_weights", "optimizer"})
# deflate, shuffle, checksum, szip, n-bit, scale-offset, lzf
BUILT_IN_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})
DTYPES = {
    np.dtype(kind): name
    for kind, name in {
        "f8": "F64",
        "f4": "F32",
        "f2": "F16",
        "i8": "I64",
        "i4": "I32",
        "i2": "I16",
        "i1": "I8",
        "u8": "U64",
        "u4": "U32",
        "u2": "U16",
        "u1": "U8",
        "?": "BOOL",
        "c8": "C64",
    }.items()
}
DEEPEST = 50
MOST_NAMES = 100_000
GROWTH = 20  # compressed chunks may grow, weights hardly do
FREE_BYTES = 16 << 20


def copy(source: Path, target: Path) -> None:
    """Copy every numeric dataset by its path, and the rest as JSON text under metadata "rest" and "wrapper".

    Raises ValueError if the file reaches outside itself or holds less than it declares.
    """
    arrays: dict[str, Any] = {}
    with h5py.File(source, "r", locking=False) as file:
        rest = attributes(file)
        wrapper = WEIGHT_GROUP if isinstance(member(file, WEIGHT_GROUP), h5py.Group) else ""
        for name, dataset in datasets(file[wrapper] if wrapper else file, "", 0):
            if dataset.shape is None or dataset.dtype.newbyteorder("=") not in DTYPES:
                rest[name] = f"<dataset {dataset.dtype}>"
            else:
                arrays[name] = dataset
            if len(arrays) + len(rest) > MOST_NAMES:
                raise ValueError(f"holds more than {MOST_NAMES} datasets")
        left = GROWTH * source.stat().st_size + FREE_BYTES
        for name, dataset in arrays.items():
            left -= check(name, dataset)
            if left < 0:
                raise ValueError(f"dataset {name!r} is larger than a file of this size may hold")
        write(target, arrays, {"rest": json.dumps(rest), "wrapper": wrapper})


def member(group: Any, name: str) -> Any:
    """The member of a group, None for a soft link; raises ValueError for a link to another file."""
    link = group.get(name, getlink=True)
    if link is None or isinstance(link, h5py.SoftLink):
        return None
    if isinstance(link, h5py.ExternalLink):
        raise ValueError(f"refused: {name!r} is a link to another file")
    return group[name]


def datasets(group: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every dataset below a group, but for an optimiser's at the top, by its path."""
    if depth > DEEPEST:
        raise ValueError(f"groups nested more than {DEEPEST} deep")
    for key in group:
        inner = member(group, key)
        if isinstance(inner, h5py.Group) and not (depth == 0 and key in OPTIMISER_GROUPS):
            yield from datasets(inner, f"{prefix}{key}/", depth + 1)
        elif isinstance(inner, h5py.Dataset):
            yield f"{prefix}{key}", inner


def check(name: str, dataset: Any) -> int:
    """The bytes of a dataset; raises ValueError if they are elsewhere, missing or packed by a plugin."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"refused: dataset {name!r} keeps its values in another file")
    layout = dataset.id.get_create_plist()
    filters = {layout.get_filter(index)[0] for index in range(layout.get_nfilters())}
    if not filters <= BUILT_IN_FILTERS:
        raise ValueError(f"dataset {name!r} is packed by filters {sorted(filters - BUILT_IN_FILTERS)}")
    nbytes = int(dataset.size) * dataset.dtype.itemsize
    if nbytes > dataset.id.get_storage_size() and not filters:
        raise ValueError(f"truncated: dataset {name!r} of shape {dataset.shape} has not all of its values")
    return int(nbytes)


def attributes(file: Any) -> dict[str, Any]:
    """The file's own attributes (Keras keeps its version and the architecture there) as plain values."""
    found: dict[str, Any] = {}
    for name in file.attrs:
        value = file.attrs[name]
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, list):
            value = [text(part) for part in value]
        if isinstance(text(value), str | int | float | bool | list):
            found[str(name)] = text(value)
    return found


def text(value: Any) -> Any:
    """Bytes as text, everything else as it is."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def write(target: Path, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write the datasets one after the other in the safetensors format."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, dataset in arrays.items():
        begin, end = end, end + int(dataset.size) * dataset.dtype.itemsize
        code = DTYPES[dataset.dtype.newbyteorder("=")]
        header[name] = {"dtype": code, "shape": list(dataset.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode("utf-8")
    with target.open("wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for dataset in arrays.values():
            values = np.asarray(dataset[()])
            stream.write(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)).data)


def limit_memory(size: int) -> None:
    """Keep a damaged file from taking all memory, where the system can."""
    try:
        import resource
    except ImportError:
        return
    allowed = (4 << 30) + 2 * GROWTH * size
    resource.setrlimit(resource.RLIMIT_AS, (allowed, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> int:
    """Run the copy; every failure becomes one line."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        limit_memory(source.stat().st_size)
        copy(source, target)
    except ValueError as error:
        reason = str(error)
    except Exception as error:  # h5py passes on whatever the HDF5 library meets in a damaged file
        reason = f"a damaged HDF5 file: {error}"
    else:
        return 0
    sys.stderr.write(" ".join(reason.split()) + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
