"""The wheel and the source archive: built without a network, with everything that runs and nothing that does not belong."""

import email
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import quam_jax

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("hatchling", reason="needs the extra `test`")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source archive of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    for target in ("wheel", "sdist"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def test_the_wheel_holds_the_package(built: dict[str, Path]) -> None:
    assert built["wheel"].name == f"quam_jax-{quam_jax.__version__}-py3-none-any.whl"  # no compiler needed
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
    for part in ("quam_jax", "converters"):
        sources = {str(p.relative_to(ROOT)) for p in (ROOT / part).rglob("*.py")}
        assert sources <= names, sorted(sources - names)
    data = {str(p.relative_to(ROOT)) for p in (ROOT / "quam_jax" / "demo_data").rglob("*") if p.is_file()}
    templates = {str(p.relative_to(ROOT)) for p in (ROOT / "quam_jax" / "report" / "templates").iterdir()}
    assert data and data <= names and templates and templates <= names
    assert {"quam_jax/py.typed", "quam_jax/demo_data/model/att_unet.pth"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"quam_jax", "converters"}
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "benchmarks/"))]


def test_the_wheel_says_what_it_is(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(wheel.read(info))
        folder = info.rsplit("/", 1)[0]
        commands = wheel.read(f"{folder}/entry_points.txt").decode()
        licences = [name for name in wheel.namelist() if name.startswith(f"{folder}/licenses/")]
    assert told["Name"] == "quam_jax" and told["Version"] == quam_jax.__version__ and told["License-Expression"] == "Apache-2.0"
    assert {name.rsplit("/", 1)[-1] for name in licences} == {"LICENSE", "THIRD_PARTY.md", "LICENSE.txt"}
    assert "quam-jax = quam_jax.cli:main" in commands
    assert {"torch", "cuda", "tpu", "docs", "test"} <= set(told.get_all("Provides-Extra"))
    needed = [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]
    assert not [line for line in needed if line.split(">")[0].split("=")[0].strip() in ("torch", "tensorflow", "h5py")]


def test_the_source_archive_holds_what_tests_need(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "CITATION.cff",
        "tests/test_packaging.py",
        "docs/index.md",
        "benchmarks/ranking.py",
        ".ci/mkdocs.yml",
        ".pre-commit-config.yaml",
        "PKG-INFO",
    } <= names


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]  # it is read from the package
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {quam_jax.__version__}" in citation


def test_one_linter_everywhere() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = [line for lines in extras.values() for line in lines if line.startswith("ruff")]
    assert len(pins) == 1  # the other extras refer to it
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert pins == [f"ruff=={hooks['rev'].removeprefix('v')}"]
    assert {hook["id"] for hook in hooks["hooks"]} == {"ruff-check", "ruff-format"}
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"ruff check .", "ruff format --check ."} <= set(lines)


def test_requirements_are_told_once_and_end_before_the_unknown() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name in ("jax", "flax", "optax", "orbax-checkpoint"):
        (line,) = (line for line in project["dependencies"] if re.match(rf"{name}[<>=]", line))
        low, high = re.fullmatch(rf"{name}>=([\d.]+),<([\d.]+)", line).groups()  # type: ignore[union-attr]
        installed = tuple(map(int, re.findall(r"\d+", importlib.metadata.version(name))))
        assert tuple(map(int, low.split("."))) <= installed < tuple(map(int, high.split(".")))
    for name in ("test", "docs"):
        wanted = {part for line in extras[name] if line.startswith("quam_jax[") for part in line[9:].rstrip("]").split(",")}
        own = {re.split(r"[<>=\[]", line)[0] for line in extras[name]} - {"quam_jax"}
        assert wanted and wanted <= set(extras)
        assert not own & {re.split(r"[<>=\[]", line)[0] for other in wanted for line in extras[other]}
