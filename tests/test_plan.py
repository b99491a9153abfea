"""What a large run will take: the formula by hand, the probe against a real run, and the numbers of the documents."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import MAIN, build
from quam_jax.config import Config, SearchConfig
from quam_jax.core.layout.choose import Layout
from quam_jax.runs.planning import Clock, Probe, Sizes, predict_run

ROOT = Path(__file__).parent.parent
PROBE = Probe(
    start=Clock(20, 10),
    compile=Clock(8, 12),
    case=Clock(1, 2),
    step=Clock(0.5, 0.75),
    merge_once=Clock(2, 2),
    merge=Clock(0.25, 0.25),
    thread=0.5,
    memory=3 * 2**30,
    models=2,
    cases=4,
    sizes=2,
    lanes=1,
    plan=Layout("loop", "loop", 2),
)
SIX = Config(search=SearchConfig(steps=6))


def test_the_formula_by_hand() -> None:
    one = predict_run(PROBE, Sizes(100, page=50, page_case=7), SIX, cases=10)
    # 20 + 2 sizes x 8 + 10 x (1 + 6 x 0.5) + 2 + 10 x 0.25
    assert one.seconds == pytest.approx(80.5)
    assert one.processor_seconds == pytest.approx(10 + 24 + 10 * 6.5 + 4.5)
    assert (one.memory, one.disk, one.price) == (3 * 2**30, 1000 + 50 + 70, None)
    four = predict_run(PROBE, Sizes(100), SIX, cases=10, devices=4, workers=2, price=3.0)
    assert four.seconds == pytest.approx(36 + 3 * 4 + 4.5)  # three rounds of four cases
    assert four.device_hours == pytest.approx(4 * 52.5 / 3600) and four.price == pytest.approx(3 * 4 * 52.5 / 3600)
    # of 64 devices in one process the writer is the bottleneck: half a second a case
    assert predict_run(PROBE, Sizes(100), SIX, cases=1000, devices=64).seconds == pytest.approx(36 + 500 + 252)
    # the same device share when the probe had two lanes: 4 s on one device each
    assert predict_run(PROBE._replace(lanes=2), Sizes(1), SIX, cases=10, devices=2).seconds == pytest.approx(36 + 5 * 8 + 4.5)
    assert predict_run(PROBE, Sizes(100, page=50, page_case=7), SIX, cases=2001).disk == 200_100  # so many get no report


@pytest.mark.parametrize("wrong", [dict(cases=0), dict(cases=1, devices=1, workers=2), dict(cases=1, devices=0, workers=0)])
def test_numbers_that_make_no_run(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected cases >= 1 and devices >= workers >= 1"):
        predict_run(PROBE, Sizes(1), SIX, **wrong)


def test_the_million_cases_of_the_document_follow_the_formula() -> None:
    text = (ROOT / "docs" / "large-runs.md").read_text()
    lines = {line.split("|")[1].strip(): line.split("|")[2:4] for line in text.splitlines() if line.startswith("| ")}

    def numbers(row: str) -> list[list[float]]:
        cells = next(cells for name, cells in lines.items() if name.startswith(row))
        return [[float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", cell)] for cell in cells]

    for column in (0, 1):
        devices, processes = (int(n) for n in numbers("devices, workers")[column])
        once = numbers("S + C k")[column][0]
        measured = Probe(
            Clock(once, 0),
            Clock(0, 0),
            Clock(numbers("a + b s")[column][0], 0),
            Clock(0, 0),
            Clock(0, 0),
            Clock(numbers("m (assumed")[column][0] / 1000, 0),
            numbers("w (assumed)")[column][0],
            0,
            2,
            4,
            1,
            1,
            Layout("vmap", "scan", 2),
        )
        found = predict_run(measured, Sizes(300_000), SIX, cases=10**6, devices=devices, workers=processes)
        assert numbers("seconds")[column][3] == found.seconds
        assert numbers("searching")[column][-1] == found.seconds - once - 200
        assert numbers("reading and writing")[column][0] == 10**6 * measured.thread / processes
        assert numbers("device hours")[column][0] == pytest.approx(found.device_hours, abs=0.6)
        assert numbers("disk at")[column][0] == found.disk / 1e9


def processor_seconds(*arguments: str) -> tuple[float, str]:
    """Processor seconds and output of a command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", MAIN, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


@pytest.mark.long  # compares times: only a machine that does nothing else gives the same twice
def test_a_probe_predicts_a_real_run(tmp_path: Path) -> None:
    """Within 25 %: in processor seconds, which other programs on the machine do not change; compilations are cached for both."""
    options = [*build(tmp_path / "data", cases=40), "--steps", "8"]
    processor_seconds("-q", "run", *options, "--out", str(tmp_path / "warm"))
    processor_seconds("plan", *options, "--cases", "40")
    _, printed = processor_seconds("plan", *options, "--cases", "40", "--json", "--price", "2")
    estimate = json.loads(printed)["estimate"]
    used, _ = processor_seconds("-q", "run", *options, "--out", str(tmp_path / "run"))
    assert estimate["processor_seconds"] == pytest.approx(used, rel=0.25)
    bytes_found = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert estimate["disk"] == pytest.approx(bytes_found, rel=0.25)
    assert estimate["price"] == pytest.approx(estimate["device_hours"] * 2)
    assert "2 adversarial models a case, one by one, 2 at a time" in json.loads(printed)["layout"]
