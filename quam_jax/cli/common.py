"""What commands share: options made from settings, the compilation cache, progress bars."""

import dataclasses
import functools
import json
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..config import PRESETS, Config, change, fields_of, load_config
from ..process import keep_freed_memory

PATH = click.Path(path_type=Path)


def cache_folder() -> Path:
    """Where compiled functions are kept between runs; JAX_COMPILATION_CACHE_DIR wins."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or base / "quam_jax" / "compiled")


def start_jax() -> None:
    """Import JAX with a persistent compilation cache, in a process that keeps its memory."""
    keep_freed_memory()
    import jax

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home only costs time
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def option_of(field: dataclasses.Field, *, show: str = "") -> Callable[[Any], Any]:
    """A click option for one field of a settings dataclass; without the option the field is left as it is."""
    name = "--" + field.name.replace("_", "-")
    text = field.metadata.get("help", "") + (f" [{show}]" if show else "")
    if field.type is bool:
        return click.option(f"{name}/--no-{name[2:]}", field.name, default=None, help=text)
    kinds: Mapping[Any, Any] = {int: click.INT, float: click.FLOAT, str: click.STRING}
    listed = typing.get_args(field.type) if typing.get_origin(field.type) is typing.Literal else ()
    options = field.metadata.get("choices") or listed
    kind = click.Choice(options) if options else kinds.get(field.type)
    return click.option(name, field.name, type=kind or click.STRING, default=None, help=text)


def config_options(command: Callable[..., Any] | None = None, *, without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Add --config, --preset and every field of Config but those in `without` as an option; the command receives `config`."""
    if command is None:
        return functools.partial(config_options, without=without)
    leaves = {name: leaf for name, leaf in fields_of(Config()).items() if name not in without}

    def wrapped(*args: Any, config_file: Path | None, preset: str, **options: Any) -> Any:
        config = PRESETS[preset]()
        if config_file is not None:
            config = load_config(config_file, base=config)
        given = {name: options.pop(name) for name in leaves}
        config = change(config, {n: v for n, v in given.items() if v is not None})
        return command(*args, config=config, **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for _, (section, field) in reversed(leaves.items()):
        default = getattr(getattr(Config(), section) if section else Config(), field.name)
        shown = ",".join(default) if isinstance(default, tuple) else str(default)
        wrapped = option_of(field, show=shown)(wrapped)
    wrapped = click.option("--config", "config_file", type=PATH, help="YAML file of settings; options win over it.")(wrapped)
    return click.option(
        "--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True, help="Settings to start from."
    )(wrapped)


def parse_json(name: str, text: str | None) -> dict[str, Any] | None:
    """The JSON mapping an option was given, None without the option; ValueError for anything else."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: expected JSON, got {text!r} ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON mapping, got {text!r}")
    return value


def names_of(text: str | None) -> tuple[str, ...]:
    """The names of a list with commas, none without a list."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal and silence elsewhere; yields `update(name, done, total)`."""
    with progress_bars(what, quiet=quiet) as update:
        yield functools.partial(update, what)


@contextmanager
def progress_bars(*stages: str, quiet: bool) -> Iterator[Callable[[str, str, int, int], None]]:
    """A progress bar for each stage of something longer, one after the other; yields `update(stage, name, done, total)`.

    Those of the `stages` named here are shown from the start.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda stage, name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {stage: progress.add_task(stage, total=None, name="") for stage in stages}

        def update(stage: str, name: str, done: int, total: int) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    progress.update(earlier, visible=False)
                tasks[stage] = progress.add_task(stage, total=None, name="")
            progress.update(tasks[stage], completed=done, total=total, name=name)

        yield update


def say(context: click.Context, text: str, *, verbose_only: bool = False) -> None:
    """Print what is going on, unless --quiet; some of it only with --verbose."""
    flags = context.obj or {}
    if not flags.get("quiet") and (flags.get("verbose") or not verbose_only):
        click.echo(text, err=True)
