"""Section C: the published combination rules and decompositions against the reference's numbers.

The keys of a case say what was called, so that every output of the set is compared and none is skipped.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from quam_jax.published import combination as published

FOLDER = "C_decomposition"
ERRORS = "notes_errors_prints"  # of meta.json: unstored outputs, with the text of an exception where there was one
RTOL, ATOL = 2e-5, 2e-6  # float32 sums of at most a few hundred terms of size about 1
RTOL_F64 = 1e-12


def cases(golden: Path) -> list[str]:
    """Names of the cases that `check` takes: those whose files are there."""
    index = json.loads((golden / FOLDER / "index.json").read_text())
    return [case["name"] for case in index if (golden / FOLDER / case["name"]).is_dir()]


def not_covered(golden: Path) -> list[str]:
    """Outputs that no rule here makes: none, since an unknown key fails its case."""
    return []


def check(golden: Path, case: str) -> None:
    """Assert every stored output, and every output that the reference did not store or could not make."""
    folder = golden / FOLDER / case
    outputs = _arrays(folder / "outputs.npz")
    inputs = _arrays(folder / "inputs.npz") | {k: v for k, v in outputs.items() if k.endswith("sample_weights")}
    notes = json.loads((folder / "meta.json").read_text())[ERRORS]
    for key, expected in outputs.items():
        found = _output(inputs, key)
        assert found.shape == expected.shape, f"{key}: expected shape {expected.shape}, got {found.shape}"
        if key.endswith("_f64"):
            assert found.dtype == expected.dtype == np.float64, f"{key}: {found.dtype}, {expected.dtype}"
            np.testing.assert_allclose(found, expected, rtol=RTOL_F64, atol=RTOL_F64, err_msg=key)
        elif key.endswith("sample_preds") or key.endswith("obj_loss_after_call"):
            np.testing.assert_array_equal(found, expected, err_msg=key)  # chosen, not computed
        else:
            assert found.dtype == expected.dtype, f"{key}: expected {expected.dtype}, got {found.dtype}"
            np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL, err_msg=key)
    for key, note in notes.items():
        if note == "identical to the input":
            np.testing.assert_array_equal(_output(inputs, key), inputs["sample_preds"], err_msg=key)
        elif not key.endswith("/printed"):
            _assert_refused(inputs, key, note)


def _assert_refused(inputs: dict[str, np.ndarray], key: str, note: str) -> None:
    try:
        _output(inputs, f"{key}/sample_weights")
    except ValueError:
        return
    raise AssertionError(f"{key}: expected ValueError, where the reference says {note!r}")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _output(inputs: dict[str, np.ndarray], key: str) -> np.ndarray:
    """What the key says was computed from the inputs."""
    *call, name = key.split("/")
    if call[0] in ("mis", "softmax", "weighted_all"):
        combined = _weighted(inputs, call)
        return {"sample_preds": combined.preds, "sample_weights": combined.weights}[name]
    if call[0] == "best":
        selected = _best(inputs, call)
        return {"sample_preds": selected.preds, "obj_loss_after_call": selected.objective}[name]
    if call[0] in ("last", "all"):
        rule = {"last": published.combine_last, "all": published.combine_all}[call[0]]
        return rule(inputs["sample_preds"])
    if call[0] in ("unc_a", "unc_b"):
        part, _, precision = name.partition("_")
        return np.asarray(getattr(_uncertainty(inputs, call, double=precision == "f64"), part))
    raise AssertionError(f"{key}: no rule for this output")


def _loss(inputs: dict[str, np.ndarray], name: str, quantity: str) -> np.ndarray:
    """loss3, loss4, or loss4one: the first entry of loss4 as an axis of length one."""
    return inputs[f"{quantity}_4"][..., :1] if name == "loss4one" else inputs[f"{quantity}_{name[-1]}"]


def _number(call: list[str], letter: str) -> float | None:
    found = [part for part in call if re.fullmatch(rf"{letter}[\d.]+", part)]
    return float(found[0].removeprefix(letter)) if found else None


def _weighted(inputs: dict[str, np.ndarray], call: list[str]) -> published.Combined:
    settings: dict[str, Any] = {"temperature": _number(call, "T")}
    if (count := _number(call, "ns")) is not None:
        settings["num_samples"] = int(count)
    rule = getattr(published, f"combine_{call[0]}")
    return rule(inputs["sample_preds"], _loss(inputs, call[1], "train_loss"), **settings)


def _best(inputs: dict[str, np.ndarray], call: list[str]) -> published.Selected:
    steps = inputs["sample_preds"].shape[1]
    kept = 0 if "no_samples" in call else steps
    window, slack = _number(call, "w"), _number(call, "g")
    reference_loss = inputs["model_train_loss"]
    return published.combine_best(
        inputs["sample_preds"][:, :kept],
        train_loss=_loss(inputs, call[1], "train_loss")[:, :kept],
        objective=_loss(inputs, call[1], "obj_loss")[:, :kept],
        reference_loss=reference_loss[:, 0] if "ref1d" in call else reference_loss,
        reference=inputs["average_net_pred"],
        window=steps + 1 if "window_too_long" in call else int(window or 1),
        **({} if slack is None else {"slack": slack}),
    )


def _uncertainty(inputs: dict[str, np.ndarray], call: list[str], *, double: bool) -> Any:
    setting, tag = call
    if double:
        inputs = {name: value.astype(np.float64) for name, value in inputs.items()}
    preds, weights = inputs["sample_preds"], None
    if tag == "last_noweights":
        preds = published.combine_last(preds)
    elif tag == "raw_weights":
        weights = inputs["raw_weights"]
    elif tag == "short_weights":
        weights = inputs["raw_weights"][:, :-2]
    elif tag.startswith("best_"):
        preds = _best(inputs, tag.split("_")).preds
    elif tag != "all_noweights":
        rule, loss, temperature = tag.split("_")
        # only the weights matter here, and these the reference makes for classification by weighted_all
        rule = "weighted_all" if rule == "softmax" else rule
        if double:  # the reference's float64 run starts from its float32 weights
            weights = inputs[f"{rule}/{loss}/{temperature}/sample_weights"]
        else:
            weights = _weighted(inputs, [rule, loss, temperature]).weights
    if setting == "unc_a":
        return published.uncertainty_a(preds, weights)
    return published.uncertainty_b(inputs["average_net_pred"], preds, weights)
