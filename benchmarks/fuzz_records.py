"""Mutants of text that settings and records are kept in: YAML, nnU-Net plans, manifests of models, records of runs."""

import json
import random
from pathlib import Path
from typing import Any

from .mutants import Tally, changed_values


def settings(folder: Path, count: int) -> dict[str, Any]:
    """YAML settings: bytes and values changed."""
    import yaml

    from quam_jax.config import Config, dump_config, load_config, to_dict
    from tests.changed_bytes import mutate

    tally, path, sound = Tally("settings, YAML"), folder / "settings.yaml", dump_config(Config()).encode()
    for index in range(count):
        rng = random.Random(index)
        changed = changed_values(to_dict(Config()), rng) if index % 2 else None
        path.write_bytes(mutate(sound, rng) if changed is None else yaml.safe_dump(changed).encode())
        tally.read(lambda: load_config(path), path)
    return tally.row()


def plans(folder: Path, count: int) -> dict[str, Any]:
    """plans.json and dataset.json of an nnU-Net folder: values and bytes changed."""
    from converters.nnunet import read_nnunet
    from tests.changed_bytes import mutate
    from tests.nnunet_folder import DATASET, PLANS, write_folder

    tally = Tally("nnU-Net, plans.json and dataset.json")
    write_folder(folder, folds=1)
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
    from quam_jax.models.description import preprocessing_of
    from quam_jax.models.folder import restore_model, save_model
    from tests.changed_bytes import mutate
    from tests.small_run import small_model

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
    """CASE.json, run.json, timing.csv and what a part left of a run folder, each read by all that read it."""
    from quam_jax.cluster.lock import PARTS, hold
    from quam_jax.data.records import digest
    from quam_jax.report.folder import load_arrays, read_run
    from quam_jax.runs import folder as run_folder
    from quam_jax.runs.ledger import Ledger
    from quam_jax.runs.merge import peak_of, read_result, throughput
    from tests.changed_bytes import mutate

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
    ledger = Ledger()
    ledger.hear("w", {"event": "done", "case": "a", "seconds": 1.0})
    ledger.hear("w", {"event": "figures", "lanes": 1, "worked": 1.0, "memory": {"peak": 1}})
    parts = folder / PARTS
    parts.mkdir()
    ledger.write(parts / "1-of-1.json")
    sound = {
        "a.json": json.dumps(case | {"sha256": digest(case)}),
        "run.json": json.dumps(run),
        "summary.json": json.dumps({"columns": {}, "cases": 1, "failed": 0}),
        "results.csv": "case,status,total/mean\na,ok,0.5\n",
        "timing.csv": "case,seconds,worker\na,1.0,w\n",
        f"{PARTS}/1-of-1.json": (parts / "1-of-1.json").read_text(),
    }
    tally = Tally("run folder, records")
    (folder / "a_seg.npz").write_bytes(b"map")

    def read_all() -> None:
        with hold(folder):
            pass
        run_folder.verify(folder, "a", "d")
        found = read_run(folder)
        for one in found.cases:
            load_arrays(one)
        told = Ledger()
        told.add(parts / "1-of-1.json")
        throughput(told, [{"case": "a", "members": 2}], members=2, seconds=1.0)
        peak_of(told)
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
