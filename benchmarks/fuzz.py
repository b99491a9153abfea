"""Mutated files over every reader: each is read or refused by one ValueError of one line, in bounded memory and time.

Claim: of at least 20,000 files (NIfTI, PNG, JPEG, TIFF, BMP, GIF, PNM, MHA, NRRD, DICOM; .pth, safetensors, npz, HDF5, .pt2; YAML
settings; plans.json and dataset.json of nnU-Net; manifests of model folders; records of run folders) none makes a reader raise
anything else, allocate more than 64 MB beyond the file, or take more than ten processor seconds; bombs are refused by their
size. `python -m benchmarks.fuzz` (--only takes parts) writes benchmarks/results/fuzz.json and ends with 1 where a reader failed;
--keep FOLDER keeps these files. The tests that run with every change take a part of the same mutations.
"""

import argparse
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .fuzz_files import bombs, graphs, hdf5, images, series, weights
from .fuzz_records import manifests, plans, records, settings
from .mutants import Tally
from .parts import Parts

PARTS: dict[str, tuple[int, Callable[[Path, int], Any]]] = {
    "images": (1250, images),
    "weights": (1000, weights),
    "hdf5": (60, hdf5),
    "settings": (2500, settings),
    "plans": (1000, plans),
    "manifests": (400, manifests),
    "records": (1000, records),
    "series": (400, series),
    "graphs": (200, graphs),
    "bombs": (1, lambda folder, _: bombs(folder)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure; the others stay")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of mutants")
    parser.add_argument("--keep", type=Path, help="folder for the files that a reader failed at")
    chosen = parser.parse_args()
    Tally.keep = chosen.keep
    results = Parts("fuzz")
    tracemalloc.start()
    for name in chosen.only:
        count, part = PARTS[name]
        results.begin(name)
        with tempfile.TemporaryDirectory() as folder:
            rows = part(Path(folder), max(1, round(count * chosen.share)))
            results.add(name, [rows] if isinstance(rows, dict) else rows)
    tracemalloc.stop()
    results.write(files=sum(row["files"] for row in results.rows))
    return int(any(row["wrong"] for row in results.rows))


if __name__ == "__main__":
    sys.exit(main())
