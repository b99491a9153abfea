"""What a graph file may cost: sizes and conditions that would take hours or all memory are refused, in one line and at once."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from converters.exported.sizes import find_multiples
from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks.graph.arithmetic import NUMBERS, evaluate_size
from quam_jax.networks.graph.program import bind_sizes, parse
from quam_jax.networks.graph.run import Blank, abstract_sizes

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300  # for all of a kind together; any of them alone would take longer if it were computed

# refused when the file is read, whatever the image
NEVER = {
    "power": "10**(10**7) == 1",
    "power of powers": "9**9**9**9 == h",
    "power chain": "(((h**64)**64)**64)**64 + 10**(10**7) > 0",
    "negative power": "10**-(10**7) == h",
    "float power": "10.0**1e9 == h",
    "no power": "0**-1 == h",
    "complex": "(-8)**0.5 == h",
    "round": "round(5, -10**9) == h",
    "shift": "1 << 10**9 == h",
    "shift back": "h >> 1 == 2",
    "factorial": "*".join(map(str, range(1, 400))) + " == h",
    "long decimal": "h == " + "9" * 4000,
    "longer decimal": "h == " + "9" * 9000,
    "hexadecimal": "h == 0x" + "f" * 9000,
    "long text": "h == " + " + ".join(["1"] * 10**6),
    "many comparisons": "h " + "<= 5" * 2000,
    "many arguments": f"max({', '.join(['h'] * 3000)}) > 1",
    "deep brackets": "(" * 150 + "h" + ")" * 150 + " == " + "-" * 150 + "h",
    "deeper brackets": "(" * 100_000 + "h",
    "deep signs": "-" * 100_000 + "h == 1",
    "deep not": "not " * 2000 + "h",
    "deep sum": "+".join(["h"] * 1000) + " == 1",
    "deep calls": "abs(" * 150 + "h" + ")" * 150,
    "deep functions": "max" + "()" * 5000,
    "division": "h // 0 == 1 // 0",
    "rest": "5 % 0 == h",
    "nothing": "max() == h",
    "one": "max(5) == h",
    "root": "sqrt(-1) == h",
    "infinity": "int(1e999) == h",
    "text": "int('1' * 10**9) == h",
    "star": "max(*[1, 2]) == h",
    "keyword": "max(h, 2, key=abs) > 1",
    "other size": "q == 2",
    "two conditions": "h == 2, w == 2",
}
# read, because it depends on the image, and refused for this one
HERE = {
    "power": "64**(h * w) > 1",
    "growth": " * ".join(["h"] * 70) + " > 1",
    "division": "8 // (h - 4) > 1",
    "rest": "8 % (h - w) > 1",
    "power chain": "((h**20)**20)**20 > 1",
    "root": "sqrt(1 - h) > 1",
}
IMAGE = "image = input('b', 1, 'h', 'w')"


def program(*lines: str) -> tuple[str, ...]:
    return (IMAGE, *lines, "y = relu(image)", "return y")


def refused(call: Any, *arguments: Any) -> str:
    """The message of the one-line ValueError that a call ends in."""
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and str(caught.value).startswith("graph: ")
    return str(caught.value)


def refuse_all() -> None:
    """All of the above, in a process that can be ended: Python's own arithmetic cannot be interrupted."""
    for name, condition in NEVER.items():
        began = time.process_time()
        assert "line 2 cannot be read" in refused(parse, program(f"check({condition})")), name
        refused(evaluate_size, condition, {"b": 1, "h": 4, "w": 4})
        assert time.process_time() - began < 5, name
    for name, condition in HERE.items():
        read = parse(program(f"check({condition})"))
        assert "cannot be used" in refused(bind_sizes, read, (1, 1, 4, 4)), name


def fuzz(seed: int, count: int) -> None:
    """Random conditions are true, false or a one-line ValueError, soon."""
    draw = random.Random(seed)
    signs = ("+", "-", "*", "//", "/", "%", "**", "<<", ">>", "==", "<", ">=", " and ", " or ", "&", "@")
    calls = ("max", "min", "abs", "int", "float", "round", "math.ceil", "math.floor", "trunc", "sqrt", "pow", "sum")
    numbers = (
        "0",
        "1",
        "2",
        "7",
        "-1",
        "0.5",
        "64",
        "1e308",
        "1e999",
        "9" * 18,
        "9" * 19,
        "9" * 5000,
        "True",
        "'a'",
        "0x" + "f" * 90,
    )

    def term(depth: int) -> str:
        if depth == 0 or draw.random() < 0.15:
            return draw.choice(("h", "w", "b", draw.choice(numbers)))
        kind = draw.randrange(4)
        if kind == 0:
            return f"{draw.choice(calls)}({', '.join(term(depth - 1) for _ in range(draw.randrange(4)))})"
        if kind == 1:
            return f"{draw.choice(('-', 'not ', '~'))}({term(depth - 1)})"
        return f"({term(depth - 1)}){draw.choice(signs)}({term(depth - 1)})"

    used = 0
    for index in range(count):
        text = term(draw.randrange(1, 7))
        if index % 5 == 0:  # and texts that are torn
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice(("", "(", "\\", "\0", "**", "\n", ";", "#", '"')) + text[place + 1 :]
        began = time.process_time()
        try:
            read = parse(program(f"check({text})"))
            for sides in ((1, 4), (7, 5), (512, 512)):
                bind_sizes(read, (1, 1, *sides))
            used += 1
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 600, text
            used += "as the network was exported" in str(error)
        assert time.process_time() - began < 2, text
    assert used > count / 50  # some were arithmetic


@pytest.mark.parametrize("call", ["refuse_all()", "fuzz(0, 4000)"])
def test_conditions_cost_little(call: str) -> None:
    code = f"from tests.test_exported_bounds import *\n{call}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_bounded_condition_still_holds() -> None:
    sizes = {"b": 2, "h": 512, "w": 384}
    for condition in (
        "2**62 + h**2 > 0",
        "h % 2**5 == 0 and -w % 2 == 0",
        "b * h * w <= 9223372036854775806",
        "max(h, w, 3) == 512",
        "round(h / 100, 1) == 5.1 and round(-1.5) == -2 and 2**-1 == 0.5",
        " + ".join(["h"] * 80) + " == 80 * h",
    ):
        assert evaluate_size(condition, sizes) is True, condition
        assert parse(program(f"check({condition})")).checks
    assert evaluate_size("h * 2 > 1", {"h": None}) is None and evaluate_size("2**3", {}) == 8


def test_a_model_folder_is_refused_when_it_is_read(tmp_path: Path) -> None:
    arguments: dict[str, Any] = dict(in_channels=1, n_classes=1, rank=2, weights=[("k", "conv", (1, 1, 1, 1))], statistics=[])
    network = Network.create("graph", **arguments, program=program("check(h % 2 == 0)"), size_multiple=(2, 1), cuts=[])
    save_model(tmp_path / "net", SegmentationModel(network, {"k": jnp.ones((1, 1, 1, 1))}, {}))
    restore_model(tmp_path / "net")
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    manifest["arguments"]["program"][1] = "check(2**(2**70) == h)"
    (tmp_path / "net" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest.json: no graph can be made .* line 2 cannot be read \(graph: the condition"):
        restore_model(tmp_path / "net")


def test_numbers_inside_a_graph_are_bounded_as_well() -> None:
    for line, message in (
        ("n = size.pow(10, 10000000)", "expected an exponent up to 64"),
        ("n = size.pow(0, -1)", "n = size.pow"),
        ("n = size.mul(9223372036854775807, 9223372036854775807)", "got one of 126 bits"),
        ("n = size.round(5, -1000000000)", "expected up to 18 digits"),
        ("n = size.mod(5, 0)", "modulo"),
        ("n = size.add(image, 1)", "expected a number, got a"),
    ):
        read = parse((IMAGE, line, "y = relu(image)", "return y"))
        with pytest.raises(ValueError, match=message) as caught:
            abstract_sizes(read, {}, Blank((1, 1, 4, 4)), read.nodes)
        assert "\n" not in str(caught.value)
    assert NUMBERS["pow"](2, 10) == 1024 and NUMBERS["sym_ite"](True, 3, 4) == 3


@pytest.mark.parametrize(
    "line",
    [
        "y = view(image, " + "[" * 60 + "]" * 60 + ")",
        "y = view(image, " + "-" * 50_000 + "1)",
        "y = view(image, 0x" + "f" * 5000 + ")",
        "y = view(image, " + "+".join(["1"] * 20_000) + ")",
        "y = relu(image); z = relu(image)",
        "y = relu(\n(\n",
        "image = input('b', 1, 'x', 'w')",
        "image = input('b', 1, -4, 'w')",
        "image = input('b', [1], 2, 'w')",
        "",
        "\0",
    ],
)
def test_lines_that_cost_too_much_or_say_too_much(line: str) -> None:
    assert "line 2 cannot be read" in refused(parse, (IMAGE, line, "return image"))


def test_an_example_of_endless_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="sides up to 65536"):
        find_multiples(program(), {}, (1, 1, 2**30, 4))
