"""Commands of many options: help in groups, everyday options first and the others on request; hints for names that are wrong."""

from collections.abc import Iterable
from typing import Any

import click
import cloup

from ..config import Config, fields_of

EVERYDAY, DATA, QUESTION, SEARCH, MACHINE = "Everyday", "Data", "Question", "Search", "Machine"
GROUPS = {
    EVERYDAY: "",
    QUESTION: "what an adversarial model is asked to change",
    SEARCH: "how it is searched for, and what becomes of the samples",
    DATA: "what files hold, and how images and fit data are cut",
    MACHINE: "memory, devices and processes; no number depends on them",
}
_OF_SECTION = {
    "targets": QUESTION,
    "search": SEARCH,
    "samples": SEARCH,
    "fit": DATA,
    "patches": DATA,
    "execution": MACHINE,
    "outputs": DATA,
}
_OF_OPTION = {
    **{name: DATA for name in ("ignore_label", "mask_values", "mask_threshold", "arch", "fit_cases", "strict")},
    **{name: MACHINE for name in ("part", "engine", "address", "workers", "worker_cpus", "dashboard")},
    **{name: EVERYDAY for name in ("memory", "learning_rate", "slack")},
}
# what people write, and what it is called here
HINTS = {
    "--input": "--images",
    "--inputs": "--images",
    "--image": "--images",
    "--labels": "--masks (to score) or --fit-masks (known data)",
    "--mask": "--masks",
    "--output": "--out",
    "--checkpoint": "--model",
    "--weights": "--model",
    "--network": "--model",
    "--train-images": "--fit-images",
    "--train-masks": "--fit-masks",
    "--train-labels": "--fit-masks",
    "--lr": "--learning-rate",
    "--device": "--devices (how many; JAX_PLATFORMS=cpu or cuda says which kind)",
    "--batch-size": "--fit-batch (fit data) or --micro (memory)",
    "--folds": "-f",
    "--dataset": "-d",
}


def group_of(name: str) -> str:
    """The group of an option by its parameter name."""
    section = fields_of(Config()).get(name, ("", None))[0]
    return _OF_OPTION.get(name) or _OF_SECTION.get(section, EVERYDAY)


class Grouped(cloup.Command):
    """A command whose `--help` shows the everyday options, and `--help-all` all of them; without arguments it prints `start`."""

    def __init__(self, *args: Any, params: Iterable[click.Parameter] = (), start: str = "", **kwargs: Any):
        self.start = start
        groups = {title: cloup.OptionGroup(title, help=text or None) for title, text in GROUPS.items()}
        everything = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_help_all,
            help="Show the options of all groups.",
        )
        params = [*params, everything]
        for param in params:
            if isinstance(param, click.Option):
                param.group = groups[group_of(param.name or "")]  # type: ignore[attr-defined]  # where cloup looks for it
        super().__init__(*args, params=params, **kwargs)
        self.option_groups.sort(key=lambda group: list(GROUPS).index(group.title))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; without arguments the start, and with an unknown option what it may be called here."""
        if not args and self.start:
            click.echo(self.start, err=True)
            ctx.exit(2)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = HINTS.get(error.option_name.split("=")[0])
            if hint is None:
                raise
            raise click.UsageError(f"no option {error.option_name}; it is called {hint} here", ctx) from None

    def format_params(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The everyday group, or all of them; how many there are besides."""
        everything = bool(ctx.meta.get("help_all"))
        hidden = [group for group in self.option_groups if group.title != EVERYDAY and not everything]
        for group in hidden:
            group.hidden = True
        super().format_params(ctx, formatter)
        for group in hidden:
            group.hidden = False
        if hidden:
            count = sum(len(group.options) for group in hidden)
            names = ", ".join(group.title.lower() for group in hidden)
            formatter.write(f"\n{count} more options in the groups {names}: {ctx.command_path} --help-all\n")


def _help_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta["help_all"] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()
