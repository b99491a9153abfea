"""Memory as this machine tells it, and a run that keeps to a small budget, by the limit of the system on its process."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.processes import contents, difference, finish, start
from quam_jax import memory, process
from quam_jax.config.schema import ExecutionConfig
from quam_jax.config.sizes import bytes_in
from quam_jax.memory import budget, free_memory, held_memory, peak_memory
from tests.small_run import prepare_folders
from tests.tiny import picture_model, tiny_network


def test_sizes_as_people_write_them() -> None:
    texts = {
        "8GB": 8e9,
        "8 gb": 8e9,
        "500MB": 5e8,
        "7.5GiB": 7.5 * 2**30,
        "2e9": 2e9,
        "1k": 1000,
        "12B": 12,
        "3T": 3e12,
        "": 0,
        " ": 0,
    }
    assert {text: bytes_in(text) for text in texts} == texts
    for wrong in ("0", "-1GB", "8 bananas", "GB", "1.2.3GB", "0GB"):
        with pytest.raises(ValueError, match="memory: expected a size such as 8GB"):
            bytes_in(wrong)
    with pytest.raises(ValueError, match="memory: expected a size such as 8GB, 500MB or 7.5GiB, got 'much'"):
        ExecutionConfig(memory="much")


def test_this_process_holds_memory_and_more_is_free() -> None:
    assert 10**7 < held_memory() <= peak_memory() * 1.01
    assert 0 < free_memory() < 10**14
    total, before = budget(10**12), budget()
    assert total[:3] == (10**12, total.base, True) and not before.asked
    assert before.base < before.total < before.base + free_memory() * 1.5


def test_freed_arrays_stay_until_images_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[int, int]] = []
    monkeypatch.setattr(process, "_set", lambda settings: not told.append(settings))
    monkeypatch.setattr(process, "_KEEPS", [])
    monkeypatch.setattr(process, "_trim_after_compilations", lambda: None)
    process.return_large_arrays()
    assert not told  # a library changes nothing
    assert process.keep_freed_memory()
    assert len(told) == 1 and process._KEEPS
    process.return_large_arrays()
    process.return_large_arrays()
    assert len(told) == 2 and not process._KEEPS
    assert told[0].keys() & told[1].keys() and all(told[0][k] != told[1][k] for k in told[0].keys() & told[1].keys())


def test_a_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {
        line.split(":")[0]: line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("Vm")
    }
    limits = {resource.RLIMIT_AS: int(used["VmSize"]) * 1024 + 10**6, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (limits[kind], limits[kind]))
    assert 0 <= free_memory() <= 10**6 + 2**22


@pytest.mark.parametrize(
    "controllers, names",
    [("", ("memory.max", "memory.current")), ("cpu,memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))],
)
def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, controllers: str, names: tuple[str, str]) -> None:
    root = "/sys/fs/cgroup" + ("/memory" if controllers else "")
    files = {
        "/proc/self/cgroup": f"0:{controllers}:/jobs/mine\n1:cpuset:/other\n",
        "/proc/meminfo": "MemAvailable:   8000000 kB",
        f"{root}/{names[0]}": "max",
        f"{root}/jobs/{names[0]}": str(5 * 10**9),
        f"{root}/jobs/{names[1]}": str(2 * 10**9),
        f"{root}/jobs/memory.stat": "anon 1\ninactive_file 500000000\n",
        f"{root}/jobs/mine/{names[0]}": str(9 * 10**9),
        f"{root}/jobs/mine/{names[1]}": "0",
    }
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(path, "").splitlines())
    assert free_memory() == 3_500_000_000  # the tightest of all groups, with the files that it would give up


@pytest.mark.parametrize("views, megabytes", [("none", 1300), pytest.param("auto", 1900, marks=pytest.mark.long)])
def test_a_run_keeps_to_what_a_limit_leaves_and_its_numbers_are_the_same(tmp_path: Path, views: str, megabytes: int) -> None:
    """The limit is the system's own on the data of the process, which would end a process that takes more."""
    with tiny_network():
        prepare_folders(tmp_path, model=picture_model())
    (tmp_path / "large").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (1200, 1600)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "large" / "a.png")
    folders = {"model": "model", "images": "large", "fit-images": "fit/images", "fit-masks": "fit/masks"}
    options = [part for name, place in folders.items() for part in (f"--{name}", str(tmp_path / place))]
    options += ["--views", views, "--steps", "2"]
    limit = ("RLIMIT_DATA", 3_200_000_000)
    runs = {
        "free": start(options, tmp_path / "free", "--chunk", "2", "--memory", "8GB"),  # whatever the machine has
        "tight": start(options, tmp_path / "tight", "--chunk", "2", "--memory", f"{megabytes}MB", limit=limit),
        "none": start(options, tmp_path / "none", "--memory", "700MB"),
    }
    codes = {name: finish(process) for name, process in runs.items()}
    assert codes["free"] == codes["tight"] == (0, "")
    code, said = codes["none"]
    assert code == 2 and "a search of an image of 1200 x 1600 takes about" in said and "expected at most 700 MB" in said
    assert not (tmp_path / "none").exists()
    told = {name: json.loads((tmp_path / name / "run.json").read_text())["memory"] for name in ("free", "tight")}
    assert told["tight"]["budget"] == megabytes * 10**6 < told["free"]["budget"]
    for memory_of_run in told.values():
        (plan,) = memory_of_run["plans"]
        assert max(memory_of_run["peak"], plan["predicted"]) <= memory_of_run["budget"]
    assert [told[name]["plans"][0]["chosen"][:6] for name in ("free", "tight")] == ["2 of 2", "1 of 2"], told
    assert set(difference(tmp_path / "tight", contents(tmp_path / "free"))) <= {"a.json"}  # which has the settings, too
    records = [json.loads((tmp_path / name / "a.json").read_text()) for name in ("free", "tight")]
    assert records[0]["row"] == records[1]["row"] and records[0]["outputs"] == records[1]["outputs"]
