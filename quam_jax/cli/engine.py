"""Options of commands whose work several workers may share: by which engine, where, and how many."""

from typing import Any

import click

from ..cluster.crew import Wanted

ONLY = {"address": "--address", "workers": "--workers", "worker_cpus": "--worker-cpus", "dashboard": "--dashboard"}


def engine_options(command: Any) -> Any:
    """Add --engine and what goes with it."""
    for option in reversed(
        [
            click.option(
                "--engine", type=click.Choice(["ray"]), help="Share the work among workers by Ray; without: this process."
            ),
            click.option(
                "--address",
                help="With --engine: a Ray cluster, HOST:PORT or auto; default: one of its own, on this machine.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(1),
                help="With --engine: how many; default: one an accelerator, else one a machine, and more as machines join.",
            ),
            click.option("--worker-cpus", type=click.IntRange(1), help="With --engine: CPUs that Ray reserves for a worker."),
            click.option("--dashboard", is_flag=True, help="With --engine, without --address: Ray's dashboard too."),
        ]
    ):
        command = option(command)
    return command


def find_engine(options: dict[str, Any]) -> Wanted | None:
    """Take the options of an engine out of all; None without one. ValueError for such as need it."""
    engine = options.pop("engine")
    given = {name: options.pop(name) for name in ONLY}
    spare = [ONLY[name] for name, value in given.items() if value]
    if engine is None:
        if spare:
            raise ValueError(f"{spare[0]}: expected --engine ray beside it")
        return None
    if given["dashboard"] and given["address"]:
        raise ValueError("--dashboard: expected no --address beside it; a cluster that is there has its own dashboard, or none")
    return Wanted(given["address"] or "", given["workers"], given["worker_cpus"], given["dashboard"])
