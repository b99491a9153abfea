"""The interpreter of imported graphs alone, on graphs written by hand; no PyTorch here."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.loading import load_model
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks.graph.arithmetic import evaluate_size
from quam_jax.networks.graph.fold import find_folds
from quam_jax.networks.graph.program import Node, Ref, Weight, bind_sizes, parse, write_node
from quam_jax.networks.graph.run import run, split_at
from quam_jax.networks.graph.values import Last, Stored, physical, plain

PROGRAM = (
    "image = input('b', 1, 'h', 'w')",
    "check(h % 2 == 0)",
    "stem = conv2d(image, weight['stem.weight'])  # stem",
    "pool = max_pool2d(stem, [2, 2])",
    "height = sym_size(image, 2)",
    "width = sym_size(image, 3)",
    "up = upsample_nearest2d.vec(pool, [height, width], None)",
    "joined = cat([up, stem], 1)",
    "logits = conv2d(joined, weight['head.weight'], weight['head.bias'])  # head",
    "return logits",
)
WEIGHTS = {"stem.weight": ("conv", (1, 1, 1, 1)), "head.weight": ("conv", (1, 1, 2, 2)), "head.bias": ("plain", (2,))}


def network(program: tuple[str, ...] = PROGRAM, **changes: Any) -> Network:
    weights = [(name, layout, shape) for name, (layout, shape) in WEIGHTS.items()]
    return Network.create(
        "graph",
        **{
            **dict(
                in_channels=1,
                n_classes=2,
                rank=2,
                program=program,
                weights=weights,
                statistics=[],
                size_multiple=(2, 1),
                cuts=[("head", "joined", ())],
            ),
            **changes,
        },
    )


PARAMS = {
    "stem.weight": jnp.full((1, 1, 1, 1), 2.0),
    "head.weight": jnp.asarray([[1.0, 10.0], [0.0, 100.0]])[None, None],
    "head.bias": jnp.asarray([0.5, 0.0]),
}


def test_a_graph_by_hand() -> None:
    x = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    # stem: [[2 4] [6 8]]; up: 8 everywhere; logits: up + 0.5 and 10 up + 100 stem
    logits = network().apply(PARAMS, {}, x)[0]
    np.testing.assert_array_equal(logits[0, ..., 0], np.full((2, 2), 8.5))
    np.testing.assert_array_equal(logits[0, ..., 1], [[280.0, 480.0], [680.0, 880.0]])
    model = SegmentationModel(network(), PARAMS, {})
    # a third row is padded to four by its edge, so its window holds 5 and 6 twice: stem 12 at most
    tall = model(jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])[None, ..., None])
    np.testing.assert_array_equal(tall[0, :, :, 0], [[8.5, 8.5], [8.5, 8.5], [12.5, 12.5]])


def test_trunk_and_tail() -> None:
    net = network()
    assert net.tail_names("head") == ["head.bias", "head.weight"]
    split = split_at(PROGRAM, "joined")
    assert [n.name for n in split.front] == ["stem", "pool", "height", "width", "up", "joined"]
    assert [n.name for n in split.behind] == ["logits"]
    x = jnp.arange(12.0).reshape(1, 4, 3, 1)
    activation = net.trunk(PARAMS, {}, x, cut="head")
    np.testing.assert_array_equal(net.tail(PARAMS, {}, activation, cut="head")[0], net.apply(PARAMS, {}, x)[0])
    with pytest.raises(ValueError, match="stem is needed behind up too"):
        split_at(PROGRAM, "up")


def test_fresh_weights() -> None:
    params, stats = network().initialise(jax.random.key(0))
    assert {n: v.shape for n, v in params.items()} == {n: shape for n, (_, shape) in WEIGHTS.items()} and not stats
    assert network().layouts() == {n: layout for n, (layout, _) in WEIGHTS.items()}


def test_saved_in_a_readable_form(tmp_path: Path) -> None:
    save_model(tmp_path / "net", SegmentationModel(network(), PARAMS, {}))
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert manifest["arguments"]["program"] == list(PROGRAM)
    x = np.random.default_rng(0).random((1, 4, 4, 1))
    np.testing.assert_array_equal(restore_model(tmp_path / "net")(x), SegmentationModel(network(), PARAMS, {})(x))

    manifest["arguments"]["program"][2] = "stem = __import__('os').system('true')"
    (tmp_path / "net" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"unknown operation __import__\('os'\).system|graph: line 3"):
        restore_model(tmp_path / "net")(x)


def test_text_form() -> None:
    node = Node(
        "y", "conv2d", (Ref("x"), Weight("a.b'c"), None, [1, 2], True, -0.5, "same", [float("inf")]), {"groups": 2}, "net.a"
    )  # noqa: E501
    line = write_node(node)
    assert line == "y = conv2d(x, weight[\"a.b'c\"], None, [1, 2], True, -0.5, 'same', [inf], groups=2)  # net.a"
    assert parse(("x = input('b', 1, 4, 4)", line, "return y")).nodes == (node,)


@pytest.mark.parametrize(
    "line",
    [
        "y = relu(z)",
        "y = relu(x",
        "y = relu(open('f').read())",
        "y = relu(x)[0]",
        "y = [x for x in x]",
        "y",
        "import os",
        "y = relu(*x)",
        "y = relu(lambda: x)",
        "a, b = relu(x)",
        "check(x) + 1",
        "y = x",
        "weight['a'] = relu(x)",
    ],
)
def test_lines_of_another_form(line: str) -> None:
    with pytest.raises(ValueError, match="graph: line 2 cannot be read") as error:
        parse(("x = input('b', 1, 4, 4)", line, "return x"))
    assert "\n" not in str(error.value)


def test_graphs_that_do_not_work() -> None:
    with pytest.raises(ValueError, match="expected an image = input"):
        parse(("y = relu(1)", "return y"))
    start, end = ("image = input('b', 1, 'h', 'w')",), ("return y",)
    x = jnp.zeros((1, 4, 4, 1))
    for line, message in (
        ("y = fancy(image)  # a.b", "y: unknown operation fancy in a.b"),
        ("y = view(image, [3, 5])  # a", r"y = view\(...\) in a does not work on these images: .*reshape"),
        ("y = relu(weight['q'])", "no weight q"),
    ):
        with pytest.raises(ValueError, match=message):
            network((*start, line, *end), cuts=[]).apply(PARAMS, {}, x)
    with pytest.raises(ValueError, match="expected axis orders among plain, conv, transposed, linear, got odd"):
        network(weights=[("a", "odd", (1,))]).shapes()


def test_conditions_on_sizes() -> None:
    program = parse(PROGRAM)
    assert bind_sizes(program, (3, 1, 4, 5)) == {"b": 3, "h": 4, "w": 5}
    with pytest.raises(ValueError, match=r"expected images \[b 1 h w\].*with h % 2 == 0; got \[3, 1, 5, 5\]"):
        bind_sizes(program, (3, 1, 5, 5))
    with pytest.raises(ValueError, match=r"got \[3, 2, 4, 5\]"):
        bind_sizes(program, (3, 2, 4, 5))
    sizes = {"h": 10, "w": 3}
    assert evaluate_size("max(1, h // 4) * w + -1 == 5 and not w > h or h < 0", sizes)
    assert evaluate_size("math.ceil(h / 4)", sizes) == 3 and evaluate_size("2 < w <= 3", sizes)
    for text in ("h.__class__", "open(h)", "[h]", "x", "'a'", "lambda: h", "h if w else h", "h +"):
        with pytest.raises(ValueError, match="graph: "):
            evaluate_size(text, sizes)


def test_channels_last_values() -> None:
    x = jnp.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    value = Last(jnp.moveaxis(x, 1, -1))
    np.testing.assert_array_equal(plain(value), x)
    for axis in range(-4, 4):
        assert value.array.shape[physical(axis, 4)] == x.shape[axis]


def test_a_torch_file_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pt2").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="needs PyTorch, got none installed"):
        load_model(tmp_path / "net.pt2")
    with pytest.raises(ValueError, match="expected the arguments output and resize_logits, got channels"):
        load_model(tmp_path / "net.pt2", channels=3)


def test_a_norm_behind_a_convolution_is_folded_only_where_nothing_else_needs_the_convolution() -> None:
    def program(last_line: str) -> tuple[str, ...]:
        return (
            "image = input('b', 2, 'h', 'w')",
            "c = conv2d(image, weight['k'], weight['b'], [1, 1], [1, 1])",
            "n = batch_norm_inference(c, weight['g'], weight['s'], weight['m'], weight['v'], 1e-05)",
            last_line,
            "return y",
        )

    rng = np.random.default_rng(0)
    weights = {
        n: jnp.asarray(rng.uniform(0.5, 1.5, s), jnp.float32) for n, s in (("b", 3), ("g", 3), ("s", 3), ("m", 3), ("v", 3))
    }
    stored: dict[str, Any] = {n: Stored(v, "plain") for n, v in weights.items()}
    stored["k"] = Stored(jnp.asarray(rng.standard_normal((3, 3, 2, 3)), jnp.float32), "conv")
    x = jnp.asarray(rng.standard_normal((2, 2, 5, 6)), jnp.float32)
    for line, folded in (("y = relu(n)", True), ("y = add(n, c)", False)):
        parsed = parse(program(line))
        assert list(find_folds(parsed, parsed.nodes, {})) == ["n"] * folded
        found, wanted = (run(parsed, stored, {"image": x}, parsed.nodes, fold=fold) for fold in (True, False))
        assert ("c" in found) != folded and "c" in wanted
        np.testing.assert_allclose(plain(found["y"]), plain(wanted["y"]), rtol=1e-5, atol=1e-5)
    assert find_folds(parse(program("y = relu(n)")), parse(program("y = relu(n)")).nodes, {"c": x}) == {}
