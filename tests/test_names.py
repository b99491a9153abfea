"""Every name in the code is defined. To the linter shapes in quotes are names too, so that it is heard on the rest alone."""

import io
import json
import shutil
import subprocess
import sysconfig
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("quam_jax", "converters", "benchmarks", "tests")


def ruff() -> str:
    """The linter of this environment, or a skip."""
    found = shutil.which("ruff", path=sysconfig.get_path("scripts")) or shutil.which("ruff")
    if found is None:
        pytest.skip("ruff is not installed")
    return found


def undefined_names(*paths: Path) -> list[str]:
    """Names that are not defined where they are used, outside strings, as `path:line name`."""
    command = [ruff(), "check", "--isolated", "--no-cache", "--select", "F821", "--output-format", "json", "--exit-zero"]
    found = json.loads(subprocess.run([*command, *map(str, paths)], capture_output=True, check=True).stdout)
    strings: dict[Path, list[tuple[tuple[int, int], tuple[int, int]]]] = {}
    names = []
    for finding in found:
        path, place = Path(finding["filename"]), (finding["location"]["row"], finding["location"]["column"] - 1)
        if path not in strings:
            tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
            strings[path] = [(token.start, token.end) for token in tokens if token.type == tokenize.STRING]
        if not any(start <= place < end for start, end in strings[path]):
            names.append(f"{path}:{place[0]} {finding['message']}")
    return names


def test_every_name_is_defined() -> None:
    assert undefined_names(*(ROOT / place for place in PLACES)) == []


def test_what_is_not_defined_is_found(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "from jaxtyping import Float\n"
        'def double(x: Float[Array, "b c"], y: Float[np.ndarray, "b c"]) -> Float[Array, "b c"]:\n'
        "    return x + missing\n"
    )
    names = [finding.partition(" ")[2] for finding in undefined_names(file)]
    assert [name.split("`")[1] for name in names] == ["Array", "np", "Array", "missing"]
