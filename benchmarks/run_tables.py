"""The tables of docs/large-runs.md: faults, bookkeeping, many cases, scaling, damaged files."""

from collections.abc import Callable
from typing import Any

from .record import markdown_table as _markdown

Rows = list[dict[str, Any]]


def _table(result: dict[str, Any], parts: list[str], header: list[str], rows: list[list[str]]) -> str:
    """The table with command, machines and dates; nothing where the parts were not measured."""
    if not rows:
        return ""
    module = next(iter(result["parts"].values()))["command"].split()[2]
    machines: dict[str, list[str]] = {}
    for about in [result["parts"][part] for part in parts if part in result["parts"]]:
        device = about.get("device") or result["device"]
        machines.setdefault(f"{device['processor']}, {device['cores']} cores", []).append(about["date"])
    told = "; ".join(f"{machine}, {', '.join(sorted(set(dates)))}" for machine, dates in machines.items())
    return _markdown(header, rows) + f"\n\n`python -m {module}`, {told}."


def _of(result: dict[str, Any], part: str) -> Rows:
    return [row for row in result["rows"] if row["part"] == part]


def kills_table(result: dict[str, Any]) -> str:
    """What was killed, how often while it ran, and what differed after the rerun."""
    rows = []
    killed = _of(result, "kills") + _of(result, "ray kills")
    for what in dict.fromkeys(row["what"] for row in killed):
        group = [row for row in killed if row["what"] == what]
        hit = [row for row in group if row["hit"]]
        before = [row["cases_before"] for row in hit]
        lives = "survivor_differs" in group[0] and "driver" not in what
        rows.append(
            [
                f"`kill -9` of {what.partition(' of ')[2] + ', Ray' if ' of ' in what else 'the only process'}",
                str(len(group)),
                str(len(hit)),
                f"{min(before)} to {max(before)}" if before else "–",
                str(sum(row["survivor_differs"] for row in hit)) if lives else "–",
                str(sum(row["files_that_differ"] for row in group)),
                str(sum(row["twice_in_the_record"] for row in group)),
            ]
        )
    header = [
        "what",
        "times",
        "while it ran",
        "cases finished in front of the rerun",
        "files that differ after the others' end",
        "files that differ after the rerun",
        "cases twice in the record",
    ]
    return _table(result, [part for part in ("kills", "ray kills") if _of(result, part)], header, rows)


def faults_table(result: dict[str, Any]) -> str:
    """What was done to a run, what it said, and what differed after the rerun."""
    rows = []
    for row in [row for part in ("disk", "damage") for row in _of(result, part) if "files_that_differ" in row]:
        message = row["message"].split("; ")[0]
        message = message[message.rindex(": ") + 2 :] if row["part"] == "disk" and ": " in message else message
        again = f"{row['done_again']} done again: " if "done_again" in row else ""
        rows.append(
            [
                row["what"],
                ", ".join(map(str, row["exit_codes"])),
                again + message.replace("|", "/"),
                str(row["files_that_differ"]),
            ]
        )
    flips = [row for row in _of(result, "damage") if row["what"] == "one bit flipped"]
    if flips:
        noticed = sum(row["noticed"] for row in flips)
        rows.append([f"one bit flipped in each of {len(flips)} files", "–", f"noticed in {noticed}", "–"])
    return _table(result, ["disk", "damage"], ["what", "exit codes", "what was said", "files that differ after the rerun"], rows)


def device_table(result: dict[str, Any]) -> str:
    """How the device fares over the demo data and over many small cases."""
    names = {"demo data, compiled": "demo data"}
    rows = []
    for row in _of(result, "demo") + _of(result, "many"):
        if "cases_a_second" not in row:
            continue
        size = " x ".join(map(str, row.get("size", [])))
        what = names.get(row["what"], f"{row['cases']:,} pictures of {size} pixels, tiny network")
        memory = (
            "–"
            if "megabytes_after_100" not in row
            else (
                f"{row['megabytes_after_100']:.0f} after 100, {row['megabytes_at_the_end']:.0f} at the end, "
                f"{row['megabytes_most']:.0f} at most"
            )
        )
        rows.append(
            [
                what,
                f"{row['cases_a_second']:.3g}",
                f"{row['models_a_second']:.3g}",
                f"{100 * row['device_busy']:.1f} %",
                f"{100 * row['device_waits_for_input']:.2f} %",
                f"{100 * row['device_waits_for_output']:.2f} %",
                memory,
            ]
        )
    header = ["run", "cases/s", "models/s", "device at work", "waits for files", "waits for the writer", "MB held"]
    return _table(result, ["demo", "many"], header, rows)


def dealing_table(result: dict[str, Any]) -> str:
    """What the process that deals holds and takes."""
    ends = (result["rows"][0], result["rows"][-1])
    rows = [[f"{row['done']:,}", f"{row['megabytes']:.0f}", f"{row['seconds']:.2f}"] for row in ends]
    table = _markdown(["cases dealt and recorded", "MB held", "seconds"], rows)
    a_case = f"{result['kilobytes_a_case']:.2f} kB and {result['milliseconds_a_case']:.2f} ms a case"
    return f"{table}\n\n{a_case}; `{result['command']}`, {result['device']['processor']}, {result['date']}."


def bookkeeping_table(result: dict[str, Any]) -> str:
    """Seconds of digests, checks, ledger and audit, and their share of the run."""
    kinds = ("digest", "verify", "publish", "ledger", "audit")
    rows = [
        [
            row["what"].replace("bookkeeping of ", "").replace("bookkeeping ", ""),
            *(f"{1000 * row[f'{kind}_seconds']:.0f}" for kind in kinds),
            f"{100 * row['share']:.2f} %",
        ]
        for row in _of(result, "demo")
        if "share" in row
    ]
    seconds = next((row["run_seconds"] for row in _of(result, "demo") if "share" in row), 0.0)
    return _table(result, ["demo"], ["demo data", *(f"{kind}, ms" for kind in kinds), f"of the run's {seconds:.1f} s"], rows)


def scaling_table(result: dict[str, Any]) -> str:
    """Weak scaling over workers and simulated devices, and how busy their devices were."""
    rows = [
        [
            row["kind"],
            str(row["count"]),
            f"{sum(row['done']):,}",
            f"{row['seconds']:.1f}",
            f"{row['whole']:.1f}",
            f"{row['efficiency']:.2f}",
            f"{min(1.0, result['device']['cores'] / row['count']):.2f}",
            f"{100 * row['device_busy']:.1f} %",
            f"{100 * row['device_waits_for_input']:.2f} %",
        ]
        for row in result["rows"]
    ]
    header = [
        "what",
        "count",
        "cases",
        "seconds",
        "whole command",
        "efficiency",
        "cores / count",
        "searching",
        "waiting for cases",
    ]
    return _table(result, list(result["parts"]), header, rows)


def fuzz_table(result: dict[str, Any]) -> str:
    """Mutated files of every format: read, refused, wrong."""
    rows = [
        [
            row["format"],
            f"{row['files']:,}",
            f"{row['read']:,}",
            f"{row['refused']:,}",
            str(row["wrong"]),
            f"{row['most_megabytes']:.1f}",
            f"{row['most_seconds']:.2f}",
        ]
        for row in result["rows"]
        if row["part"] != "bombs"
    ]
    total = [sum(row[name] for row in result["rows"] if row["part"] != "bombs") for name in ("files", "read", "refused", "wrong")]
    rows.append(["all", *(f"{value:,}" for value in total), "", ""])
    return _table(result, list(result["parts"]), ["format", "files", "read", "refused", "else", "most MB", "most seconds"], rows)


PAGE = "docs/large-runs.md"
TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "kills table": (PAGE, "faults", kills_table),
    "faults table": (PAGE, "faults", faults_table),
    "device table": (PAGE, "faults", device_table),
    "dealing table": (PAGE, "dealing", dealing_table),
    "bookkeeping table": (PAGE, "faults", bookkeeping_table),
    "weak scaling table": (PAGE, "weak_scaling", scaling_table),
    "fuzz table": (PAGE, "fuzz", fuzz_table),
}
