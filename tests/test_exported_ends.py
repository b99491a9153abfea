"""What an exported graph ends in: activations taken off or turned back, decisions refused, and the shapes of outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from converters.exported import convert_exported, from_torch
from converters.exported.capture import choose_output
from converters.exported.ends import End, check_coarse, find_end, missing_axes
from converters.exported.write import IMAGE, Written
from converters.parity import check_parity
from quam_jax.models.conversion import ConvertRequest, convert_model
from quam_jax.networks.graph.program import Node, Ref
from tests.command_line import call
from tests.exported_networks import images, seeded

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

LOGITS = np.random.default_rng(0).normal(size=(2, 3, 4, 5))


def graph(*operations: tuple[Any, ...]) -> Written:
    """A convolution and some operations after it, each with the one before as its first argument."""
    nodes = [Node("z", "conv2d", (Ref(IMAGE), None), {}, "")]
    for number, (op, *arguments) in enumerate(operations):
        nodes.append(Node(f"n{number}", op, (Ref(nodes[-1].name), *arguments), {}, ""))
    return Written(nodes, nodes[-1].name, {}, {}, {})


def ops(end: End) -> list[str]:
    """The operations that the output still needs."""
    nodes, found, open_ = {node.name: node for node in end.nodes}, [], [end.output]
    while open_:
        node = nodes.get(open_.pop())
        if node is not None:
            found.append(node.op)
            open_ += [a.name for a in node.args if isinstance(a, Ref)]
    return found[::-1]


@pytest.mark.parametrize(
    "behind", [(), (("clone",),), (("slice", 2, 0, 3), ("slice", 3, 1, 4)), (("flip", [2]), ("to", "float32"))]
)
@pytest.mark.parametrize(
    ("activation", "inside"),
    [(("softmax", 1), "softmax"), (("softmax", -3), "softmax"), (("log_softmax", 1), "softmax"), (("sigmoid",), "sigmoid")],
)
def test_an_activation_at_the_end_is_taken_off(activation: tuple[Any, ...], inside: str, behind: tuple[Any, ...]) -> None:
    values = softmax(LOGITS, 1) if inside == "softmax" else expit(LOGITS)
    end = find_end(graph(activation, *behind), np.log(values) if activation[0] == "log_softmax" else values)
    assert end.inside == inside and f"ends in a {inside}" in end.note
    assert ops(end) == ["conv2d", *(op for op, *_ in behind)]


@pytest.mark.parametrize(
    "behind",
    [(("upsample_bilinear2d.vec", [8, 10], False),), (("mul", 0.5), ("add", 0.1)), (("slice", 1, 0, 2),), (("clamp", 0, 1),)],
)
def test_probabilities_that_were_worked_on_are_turned_back(behind: tuple[Any, ...]) -> None:
    end = find_end(graph(("sigmoid",), *behind), expit(LOGITS))
    assert end.inside == "sigmoid" and "log-odds" in end.note and ops(end)[-1] == "sub"
    end = find_end(graph(("softmax", 1), *behind), softmax(LOGITS, 1))
    assert end.inside == "softmax" and "softmax inside" in end.note and ops(end)[-2:] == ["clamp", "log"]


def test_probabilities_are_known_by_their_values_too() -> None:
    end = find_end(graph(("exp",), ("div", 3.0)), softmax(LOGITS, 1))
    assert end.inside == "softmax" and "sum to 1 over the channels" in end.note


def test_logits_stay_as_they_are() -> None:
    for written in (graph(), graph(("relu",)), graph(("upsample_bilinear2d.vec", [8, 10], False))):
        end = find_end(written, LOGITS)
        assert end == End(written.nodes, written.output)
    end = find_end(graph(("tanh",)), expit(LOGITS))  # within 0 and 1 by chance, or not
    assert end.inside == "" and "taken for logits, not for probabilities" in end.note


@pytest.mark.parametrize(
    ("operations", "values"),
    [
        ((("argmax", 1, True),), LOGITS.argmax(1)[:, None]),
        ((("argmax", 1, True), ("to", "float32")), LOGITS.argmax(1)[:, None].astype(np.float32)),
        ((("softmax", 1), ("max.dim", 1), ("size.item", 1)), LOGITS.argmax(1)),
        ((("sigmoid",), ("gt", 0.5), ("_to_copy",)), (LOGITS > 0).astype(np.float32)),
        ((("sigmoid",), ("round",)), (LOGITS > 0).astype(np.float32)),
    ],
    ids=["argmax", "argmax as float", "places of a maximum", "threshold", "rounding"],
)
def test_what_is_decided_already_is_refused(operations: tuple[Any, ...], values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="decided already .* expected logits"):
        find_end(graph(*operations), values)


def test_the_image_itself_may_be_the_output() -> None:
    assert find_end(Written([], IMAGE, {}, {}, {}), LOGITS).inside == ""


def test_the_value_of_a_maximum_is_no_decision() -> None:
    assert find_end(graph(("max.dim", 1, True), ("size.item", 0)), LOGITS[:, :1]).inside == ""


def test_a_softmax_over_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="softmax over axis 0; expected one over the channels"):
        find_end(graph(("softmax", 0)), softmax(LOGITS, 0))
    with pytest.raises(ValueError, match="softmax of one channel, which is 1 everywhere"):
        find_end(graph(("softmax", 1)), np.ones((2, 1, 4, 5)))
    with pytest.raises(ValueError, match="logarithm of a sigmoid; expected logits"):
        find_end(graph(("log_sigmoid",)), np.log(expit(LOGITS)))


def test_an_activation_that_something_else_needs_is_kept() -> None:
    """As an attention map would be: only what is behind the end may lose it."""
    nodes = [*graph(("sigmoid",)).nodes, Node("n1", "mul", (Ref("n0"), Ref("n0")), {}, "")]
    end = find_end(Written(nodes, "n1", {}, {}, {}), expit(LOGITS))
    assert end.inside == "sigmoid" and ops(end)[-1] == "sub"


def test_shapes() -> None:
    assert missing_axes((2, 3, 16, 20), (2, 1, 16, 20), name="n") == ()
    assert missing_axes((2, 16, 20), (2, 1, 16, 20), name="n") == (1,)
    assert missing_axes((2, 20, 20, 20), (2, 1, 20, 20), name="n") == ()  # channels first where both would do
    with pytest.raises(ValueError, match=r"n: its output \[2, 16, 20, 3\] has the channels last; expected \[b c \*space\]"):
        missing_axes((2, 16, 20, 3), (2, 1, 16, 20), name="n")
    for logits, image in (((4, 5), (16, 20)), ((5, 5), (17, 20)), ((16, 20), (16, 20)), ((32, 40), (16, 20)), ((4, 5), (16, 21))):
        check_coarse(logits, image, name="n")
    for logits, image in (((388, 388), (572, 572)), ((14, 20), (16, 20)), ((12, 18), (16, 20))):
        with pytest.raises(ValueError, match="n: its output has the sides .* logits of the middle of the image"):
            check_coarse(logits, image, name="n")


@pytest.mark.parametrize(
    ("sides", "choice", "expected"),
    [
        ([(8, 8)], None, None),
        ([(8, 8), (4, 4)], None, 0),
        ([(2, 2), (4, 4), (8, 8)], None, 2),
        ([(4, 4), (2, 2)], None, 0),
        ([(8, 8), (4, 4)], "1", 1),
        ([(8, 8), (4, 4)], -1, -1),
    ],
)
def test_under_deep_supervision_the_full_resolution_is_taken(sides: Any, choice: Any, expected: Any) -> None:
    values = [torch.zeros(1, 2, *own) for own in sides]
    found, note = choose_output(values, choice, (8, 8))
    assert found == expected and (f"{expected} is taken" in note) == (len(sides) > 1)


def test_of_named_outputs_the_logits_are_taken() -> None:
    values = {name: torch.zeros(1, 2, 8, 8) for name in ("aux", "out")}
    assert choose_output(values, None, (8, 8))[0] == "out" and "2 values (aux, out)" in choose_output(values, None, (8, 8))[1]
    assert choose_output(values, "aux", (8, 8))[0] == "aux"


class Net(nn.Module):
    """A small network and what somebody put behind it."""

    def __init__(self, channels: int, end: Callable[[Any], Any]) -> None:
        super().__init__()
        self.first, self.head, self.end = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, channels, 1), end

    def forward(self, x: Any) -> Any:
        return self.end(self.head(functional.silu(self.first(x))))


def resized(x: Any) -> Any:
    return functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")


@pytest.mark.parametrize(
    ("channels", "end", "classes", "inside"),
    [
        (1, lambda z: z[:, 0], 2, ""),
        (1, lambda z: torch.sigmoid(z[:, 0]), 2, "sigmoid"),
        (2, lambda z: resized(torch.softmax(z, 1)), 2, "softmax"),
        (2, lambda z: resized(torch.sigmoid(z)), 4, "sigmoid"),
        (3, lambda z: torch.cat([torch.sigmoid(z[:, :1]), torch.sigmoid(z[:, 1:])], 1), 8, "sigmoid"),
        (1, lambda z: torch.cat([1 - torch.sigmoid(z), torch.sigmoid(z)], 1), 2, "softmax"),
    ],
    ids=["squeezed", "squeezed sigmoid", "resized softmax", "resized sigmoid", "two heads", "probabilities of both"],
)
def test_networks_with_an_end_of_their_own(channels: int, end: Any, classes: int, inside: str) -> None:
    module = seeded(Net(channels, end)).eval()
    model = from_torch(module, images(2, 1, 8, 12))
    assert model.network.classes == classes and model.manifest["outputs"].get("inside", "") == inside
    x = images(1, 1, 8, 12, seed=3)
    with torch.no_grad():
        theirs = module(torch.as_tensor(x)).numpy()
    logits = np.asarray(model(np.moveaxis(x, 1, -1)), np.float64)
    probs = softmax(logits, -1)
    if classes > 2 or channels == 1:
        marginal = probs @ np.asarray(model.network.sums or [[1, 0], [0, 1]])
        wanted = theirs if inside else expit(theirs)
        wanted = wanted[:, None] if wanted.ndim == 3 else wanted
        np.testing.assert_allclose(np.moveaxis(marginal, -1, 1), wanted, atol=1e-5)
    else:
        np.testing.assert_allclose(np.moveaxis(probs, -1, 1), theirs, atol=1e-5)
    if theirs.ndim == 4:
        assert check_parity(model, reference={"input": x, "logits": theirs})["verdict"] == "equal"


def save(module: Any, path: Path, example: Any = None) -> Path:
    torch.export.save(torch.export.export(module, (torch.as_tensor(images(2, 1, 8, 12)) if example is None else example,)), path)
    return path


class Dropping(Net):
    """A network whose only difference in train mode is a dropout."""

    def forward(self, x: Any) -> Any:
        return functional.dropout(super().forward(x), 0.5, self.training)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("dropout", lambda: Dropping(2, nn.Identity()).train(), r"as in train mode: call model.eval\(\)"),
        ("batch norm", lambda: Net(2, nn.BatchNorm2d(2)).train(), r"as in train mode: call model.eval\(\)"),
        ("rrelu", lambda: Net(2, nn.RReLU()).train(), r"as in train mode: call model.eval\(\)"),
        ("argmax", lambda: Net(2, lambda z: z.argmax(1)).eval(), "decided already"),
        ("channels last", lambda: Net(3, lambda z: z.movedim(1, -1)).eval(), r"channels last; expected \[b c \*space\]"),
        ("valid", lambda: Net(2, nn.Conv2d(2, 2, 3)).eval(), "logits of the middle of the image"),
        ("flat", lambda: Net(2, lambda z: z.mean((2, 3))).eval(), "expected logits of 4 axes"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: Any, capsys: Any, name: str, module: Any, message: str
) -> None:
    path = save(module(), tmp_path / "net.pt2")
    code, _, error = call(monkeypatch, capsys, "convert", path, tmp_path / "out")
    assert code == 2 and error.count("\n") == 1 and "Traceback" not in error and not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=message):
        convert_exported(path)


def test_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    module = seeded(Net(2, nn.Identity())).eval()
    example = torch.as_tensor(images(2, 1, 8, 12))
    exact = module(example).detach().numpy()
    path = save(module.half(), tmp_path / "net.pt2", example.half())
    model = convert_exported(path)
    assert model.manifest["parity"]["verdict"] == "equal"
    found = np.moveaxis(np.asarray(model(np.moveaxis(np.asarray(example), 1, -1))), -1, 1)
    np.testing.assert_allclose(found, exact, atol=5e-3 * np.ptp(exact))


def test_the_meaning_is_asked_at_conversion(tmp_path: Path) -> None:
    path = save(seeded(Net(3, nn.Identity())).eval(), tmp_path / "net.pt2")
    plain = convert_model(ConvertRequest(path, tmp_path / "plain")).model
    assert plain.network.classes == 3 and plain.manifest["outputs"] == {"meaning": "softmax"}
    regions = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    result = convert_model(ConvertRequest(path, tmp_path / "regions", outputs="sigmoid", regions=regions))
    assert result.model.network.classes == 8
    assert any("3 independent output channels (sigmoid)" in note and "TC is label 1 or 3" in note for note in result.notes)
    path = save(seeded(Net(5, nn.Sigmoid())).eval(), tmp_path / "many.pt2")
    with pytest.raises(ValueError, match="many.pt2: .* 4 independent channels at most.* --outputs softmax"):
        convert_model(ConvertRequest(path, tmp_path / "no"))
    assert convert_model(ConvertRequest(path, tmp_path / "many", outputs="softmax")).model.network.classes == 5
    with pytest.raises(ValueError, match="the network returns one tensor; expected no choice, got '7'"):
        convert_model(ConvertRequest(path, tmp_path / "no", output="7"))
    with pytest.raises(ValueError, match="an output is chosen among those of a graph"):
        convert_model(ConvertRequest(tmp_path / "many", tmp_path / "no", output="1"))
    path = save(seeded(Net(2, nn.Softmax(1))).eval(), tmp_path / "softmax.pt2")
    with pytest.raises(ValueError, match="its graph ends in a softmax; expected no --outputs sigmoid"):
        convert_model(ConvertRequest(path, tmp_path / "no", outputs="sigmoid"))
    assert not (tmp_path / "no").exists()


def test_what_nobody_foresaw_is_one_line(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    path = save(seeded(Net(2, nn.Identity())).eval(), tmp_path / "net.pt2")

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("conv2d_1")

    monkeypatch.setattr("converters.exported.convert.write_graph", fail)
    with pytest.raises(ValueError, match=r"net.pt2: cannot be imported as a graph \(KeyError: 'conv2d_1'\)"):
        convert_exported(path)
    monkeypatch.setattr("converters.exported.convert.load_exported", fail)
    code, _, error = call(monkeypatch, capsys, "convert", path, tmp_path / "out")
    assert code == 2 and error.count("\n") == 1 and "KeyError: 'conv2d_1'; nobody foresaw this: quam-jax -v" in error


def test_sigmoids_that_sum_to_one_have_a_background(tmp_path: Path) -> None:
    """As where they were trained on one-hot masks; the same network with other biases is one of two regions."""
    module = seeded(Net(2, nn.Sigmoid())).eval()
    with torch.no_grad():
        module.head.weight *= 0.02
        module.head.bias[:] = torch.tensor([1.0, -1.0])
    result = convert_model(ConvertRequest(save(module, tmp_path / "both.pt2"), tmp_path / "both", outputs="sigmoid"))
    assert result.model.manifest["outputs"]["regions"] == {"background": [0], "foreground": [1]}
    assert any("sum to about 1 on the example" in note for note in result.notes)
    with torch.no_grad():
        module.head.bias[:] = torch.tensor([-1.0, -1.5])
    result = convert_model(ConvertRequest(save(module, tmp_path / "two.pt2"), tmp_path / "two"))
    assert result.model.manifest["outputs"]["regions"] == {"region 1": [1], "region 2": [2]}
    result = convert_model(ConvertRequest(tmp_path / "both", tmp_path / "named", class_names=("disc", "cup")))
    assert result.model.manifest["outputs"]["regions"] == {"disc": [1], "cup": [2]}
