"""Mutated files over every reader: each is read or refused by one ValueError of one line, in bounded memory and time.

Claim: of at least 20,000 files (NIfTI, PNG, JPEG, TIFF, BMP, GIF, PNM, MHA, NRRD, DICOM; .pth, safetensors, npz, HDF5, .pt2; YAML
settings; plans.json and dataset.json of nnU-Net; manifests of model folders; records of run folders) none makes a reader raise
anything else, allocate more than 64 MB beyond the file, or take more than ten processor seconds; bombs are refused by their
size. `python -m benchmarks.fuzz` (--only takes parts) writes benchmarks/results/fuzz.json and ends with 1 where a reader failed;
--keep FOLDER keeps these files. The tests that run with every change take a part of the same mutations.
"""

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .mutants import MOST_SECONDS, Tally, changed_values, map_bomb, nifti_bomb, png_bomb
from .parts import Parts


def images(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Images and masks of every format."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    from quam_jax.data.volumes import read_image, read_labels
    from tests.test_data_fuzz import FORMATS, mutate

    itk = ()
    with contextlib.suppress(ImportError):
        import SimpleITK

        itk = (".mha", ".nrrd")
    for suffix in (*FORMATS, *itk):
        rng = np.random.default_rng(zlib.crc32(suffix.encode()) + 1)
        values = rng.integers(0, 2, (12, 15)).astype(np.uint8)
        path = folder / f"a{suffix}"
        if suffix in itk:
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
        elif "nii" in suffix:
            nib.save(nib.Nifti1Image(values, np.eye(4)), path)
        else:
            Image.fromarray(values).save(path)
        sound, tally = path.read_bytes(), Tally(suffix)
        for number in range(count):
            path.write_bytes(mutate(sound, rng))
            as_labels = number % 3 == 0
            tally.read(
                lambda p=path, m=as_labels: (
                    read_labels(p, classes=2, like=None, limit=10**6) if m else read_image(p, limit=10**6)
                ),
                path,
            )
        yield tally.row()


def weights(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Weight files: pickles in zip archives and old ones, safetensors, npz."""
    from converters.readers import read_weights
    from tests.test_readers_fuzz import mutate, seeds

    for kind, content in seeds(folder).items():
        tally, path = Tally(f"weights, {kind}"), folder / "mutant"
        for index in range(count):
            path.write_bytes(mutate(content, random.Random(f"{kind} {index}")))
            tally.read(lambda p=path: read_weights(p), path)
        yield tally.row()


def hdf5(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """HDF5 files; each is read in a process of its own."""
    try:
        import h5py
    except ImportError:
        return
    import numpy as np

    from converters.readers import keras_file, read_weights
    from tests.test_readers_fuzz import mutate

    path = folder / "mutant"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file["conv/kernel:0"] = np.arange(18, dtype=np.float32).reshape(3, 3, 1, 2)
        file.create_dataset("conv/bias:0", data=np.ones(64), compression="gzip", chunks=(16,))
    sound, usual = path.read_bytes(), keras_file.SECONDS
    keras_file.SECONDS = MOST_SECONDS
    tally = Tally("weights, HDF5")
    for index in range(count):
        path.write_bytes(mutate(sound, random.Random(f"h5 {index}")))
        tally.read(lambda: read_weights(path), path)
    keras_file.SECONDS = usual
    yield tally.row()


def settings(folder: Path, count: int) -> dict[str, Any]:
    """YAML settings: bytes and values changed."""
    import yaml

    from quam_jax.config import Config, dump_config, load_config, to_dict
    from tests.test_readers_fuzz import mutate

    tally, path, sound = Tally("settings, YAML"), folder / "settings.yaml", dump_config(Config()).encode()
    for index in range(count):
        rng = random.Random(index)
        changed = changed_values(to_dict(Config()), rng) if index % 2 else None
        path.write_bytes(mutate(sound, rng) if changed is None else yaml.safe_dump(changed).encode())
        tally.read(lambda: load_config(path), path)
    return tally.row()


def plans(folder: Path, count: int) -> dict[str, Any]:
    """plans.json and dataset.json of an nnU-Net folder: values and bytes changed."""
    import numpy as np

    from converters.nnunet import read_nnunet
    from converters.writers import write_state_dict
    from quam_jax.models.model import Network
    from tests.test_converters_nnunet import DATASET, PLANS, torch_shapes
    from tests.test_readers_fuzz import mutate

    tally = Tally("nnU-Net, plans.json and dataset.json")
    network = Network.create(
        "nnunet_plain",
        in_channels=2,
        n_classes=3,
        features_per_stage=(2, 4),
        rank=2,
        n_conv_per_stage=(1, 2),
        n_conv_per_stage_decoder=(1,),
        kernel_sizes=((3, 3), (1, 3)),
        strides=((1, 1), (1, 2)),
    )
    (folder / "fold_0").mkdir()
    weights = {name: np.zeros(shape, np.float32) for name, shape in torch_shapes(network).items()}
    write_state_dict(folder / "fold_0" / "checkpoint_final.pth", weights)

    for index in range(count):
        rng = random.Random(index)
        contents = {"plans.json": json.dumps(PLANS), "dataset.json": json.dumps(DATASET)}
        name = rng.choice(list(contents))
        if index % 2:
            contents[name] = json.dumps(changed_values(json.loads(contents[name]), rng))
            raw = contents[name].encode()
        else:
            raw = mutate(contents[name].encode(), rng)
        for file, text in contents.items():
            (folder / file).write_bytes(raw if file == name else text.encode())
        tally.read(lambda: read_nnunet(folder), folder / "plans.json", folder / "dataset.json")
    return tally.row()


def manifests(folder: Path, count: int) -> dict[str, Any]:
    """manifest.json of a model folder, as far as a model is described by it: values and bytes changed."""
    from quam_jax.models.folder import restore_model, save_model
    from quam_jax.models.preprocessing import preprocessing_of
    from tests.small_run import small_model
    from tests.test_readers_fuzz import mutate

    tally, path = Tally("model folder, manifest.json"), folder / "model" / "manifest.json"
    save_model(folder / "model", small_model())
    sound = path.read_bytes()
    for index in range(count):
        rng = random.Random(index)
        changed = changed_values(json.loads(sound), rng) if index % 2 else None
        path.write_bytes(mutate(sound, rng) if changed is None else json.dumps(changed).encode())
        tally.read(lambda: preprocessing_of(restore_model(folder / "model")), path)
    return tally.row()


def records(folder: Path, count: int) -> dict[str, Any]:
    """CASE.json, run.json, timing.csv and a worker's journal of a run folder, each read by all that read it."""
    from quam_jax.data.records import digest
    from quam_jax.report.folder import load_arrays, read_run
    from quam_jax.runs import folder as run_folder
    from quam_jax.runs.merge import read_outcome, read_result
    from quam_jax.runs.workers import Worker, others_at_work
    from tests.test_readers_fuzz import mutate

    case = {
        "case": "a",
        "digest": "d",
        "files": {"a_seg.npz": {"bytes": 3, "sha256": "x"}},
        "outputs": {"segmentation": "a_seg.npz"},
        "notes": [],
        "audit": [],
        "row": {"case": "a", "status": "ok", "members": 2, "held": 1, "total/mean": 0.5},
    }
    run = {"digest": "d", "status": "finished", "cases": ["a"], "failed": {}, "notes": [], "config": {"search": {"members": 2}}}
    journal = [
        {"event": "start", "time": 1.0, "machine": "m", "pid": 1, "born": "2"},
        {"event": "done", "case": "a", "seconds": 1.0},
        {"event": "left", "why": ""},
    ]
    sound = {
        "a.json": json.dumps(case | {"sha256": digest(case)}),
        "run.json": json.dumps(run),
        "summary.json": json.dumps({"columns": {}, "cases": 1, "failed": 0}),
        "results.csv": "case,status,total/mean\na,ok,0.5\n",
        "timing.csv": "case,seconds,worker\na,1.0,w\n",
        ".workers/w.jsonl": "\n".join(map(json.dumps, journal)) + "\n",
    }
    tally = Tally("run folder, records")
    (folder / ".workers").mkdir()
    (folder / "a_seg.npz").write_bytes(b"map")

    def read_all() -> None:
        others_at_work(folder, patience=60)
        run_folder.verify(folder, "a", "d")
        found = read_run(folder)
        for one in found.cases:
            load_arrays(one)
        with Worker(folder, patience=60) as worker:
            journals = worker.journals()
            worker.claim("a")
            read_outcome(journals, {}, folder, present=[worker.name])
        worker.journal.unlink()
        shutil.rmtree(worker.claims)
        read_result(folder, ["a"])

    for index in range(count):
        rng = random.Random(index)
        name = rng.choice(list(sound))
        for file, text in sound.items():
            (folder / file).write_text(text)
        if index % 2 and name.endswith(".json"):
            (folder / name).write_text(json.dumps(changed_values(json.loads(sound[name]), rng)))
        else:
            (folder / name).write_bytes(mutate(sound[name].encode(), rng))
        tally.read(read_all, folder / name)
    return tally.row()


def series(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """DICOM series of two images, one of which is changed."""
    try:
        from pydicom.uid import generate_uid  # noqa: F401
    except ImportError:
        return
    from quam_jax.data.dicom import read_series
    from tests.test_dicom import stored_values, write_slices
    from tests.test_readers_fuzz import mutate

    write_slices(folder, stored_values((4, 5, 2)))
    path = sorted(p for p in folder.rglob("*") if p.is_file())[0]
    tally, sound = Tally("DICOM series"), path.read_bytes()
    for index in range(count):
        path.write_bytes(mutate(sound, random.Random(index)))
        tally.read(lambda: read_series(folder), path)
    yield tally.row()


def graphs(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Exported graphs (.pt2): bytes of the archive changed."""
    try:
        import torch
    except ImportError:
        return
    from converters.exported.archive import load_exported
    from tests.test_readers_fuzz import mutate

    path = folder / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.Conv2d(1, 2, 3).eval(), (torch.zeros(1, 1, 8, 8),)), path)
    tally, sound = Tally("exported graph, .pt2"), path.read_bytes()
    for index in range(count):
        path.write_bytes(mutate(sound, random.Random(index)))
        tally.read(lambda: load_exported(path), path)
    yield tally.row()


def bombs(folder: Path) -> Iterator[dict[str, Any]]:
    """Small files that announce or unpack to a great deal: refused by a message that names the size."""
    from quam_jax.config import load_config
    from quam_jax.data.maps import read_map
    from quam_jax.data.volumes import read_image

    def write(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    yaml_bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(20)
    )
    write("bomb.nii.gz", nifti_bomb())
    write("long.nii.gz", nifti_bomb(announced=8))
    write("bomb.png", png_bomb())
    write("map.npz", map_bomb())
    write("bomb.yaml", yaml_bomb.encode())
    cases = {
        "gzip NIfTI": lambda: read_image(folder / "bomb.nii.gz"),
        "NIfTI that unpacks to more than it announces": lambda: read_image(folder / "long.nii.gz"),
        "PNG": lambda: read_image(folder / "bomb.png"),
        "npz of a map": lambda: read_map(folder / "map"),
        "YAML": lambda: load_config(folder / "bomb.yaml"),
    }
    for name, reader in cases.items():
        tally = Tally(f"bomb, {name}")
        said = ""

        def telling(read: Callable[[], Any] = reader) -> Any:
            nonlocal said
            try:
                return read()
            except ValueError as error:
                said = str(error)
                raise

        tally.read(telling)
        yield tally.row() | {"message": said.replace(str(folder), "")[:200]}


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
