"""The pages: every link leads somewhere, every command line exists, and the examples of the tutorials run."""

import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from quam_jax.cli import main
from quam_jax.cli.commands import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = unicodedata.normalize("NFKD", re.sub(r"[`*]|\]\([^)]*\)|\[", "", title)).lower()
        found.add(re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {link}; there are {sorted(anchors(target))}"
        if page.is_relative_to(ROOT / "docs"):  # what lies outside is not on the site
            assert target.is_relative_to(ROOT / "docs"), f"{page.name}: {link}"


def test_every_page_is_on_the_site() -> None:
    def leaves(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from leaves(item)

    settings = yaml.safe_load((ROOT / ".ci" / "mkdocs.yml").read_text())
    pages = {str(p.relative_to(ROOT / "docs")) for p in PAGES if p.is_relative_to(ROOT / "docs")}
    assert set(leaves(settings["nav"])) == pages


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every `quam-jax` line in the blocks of a page."""
    for language, block in BLOCK.findall(text):
        if language in ("", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    if part.strip().startswith("quam-jax "):
                        yield shlex.split(part, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_commands_and_options_exist(page: Path) -> None:
    for words in command_lines(page.read_text()):
        command: click.Command = cli
        rest = [word for word in words[1:] if word not in ("-q", "-v")]
        context = click.Context(cli)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0])
            assert found is not None, f"{page.name}: {' '.join(words)}"
            command, rest = found, rest[1:]
        known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
        if command.context_settings.get("ignore_unknown_options"):
            continue
        for word in rest:
            assert not word.startswith("--") or word.split("=")[0] in known, f"{page.name}: {' '.join(words)}: {word}"


EXECUTED = [*TUTORIALS, ROOT / "README.md"]
GIVEN = {"flax-network": ("weights/sct_gm/challenge_model.hdf5", "data/spinalcord_gm")}  # files that a page speaks of
DEAR = {"flax-network": "quam_jax.quantify("}  # a block with these words takes half a minute: only with --long


@pytest.mark.parametrize("page", EXECUTED, ids=[p.stem for p in EXECUTED])
def test_examples_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Blocks marked `python` share one namespace; those marked `bash` are commands of ours, run in the same folder."""
    for name in GIVEN.get(page.stem, ()):
        if not (request.getfixturevalue("shared") / name).exists():
            pytest.skip(f"no {name} in the folder of shared data (--shared)")
        (tmp_path / Path(name).name).symlink_to(request.getfixturevalue("shared") / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    ran = 0
    for language, block in BLOCK.findall(page.read_text()):
        if page.stem in DEAR and DEAR[page.stem] in block and not request.config.getoption("--long"):
            continue
        if language == "python":
            exec(compile(block, page.name, "exec"), names)
            ran += 1
        elif language == "bash":
            for words in command_lines(f"```bash\n{block}```"):
                monkeypatch.setattr(sys, "argv", words)
                with pytest.raises(SystemExit) as stop:
                    main()
                assert stop.value.code == 0, f"{page.name}: {' '.join(words)}: {capsys.readouterr().err}"
                ran += 1
    assert ran > 0


def test_a_page_that_lies_is_noticed(tmp_path: Path) -> None:
    """The checks above find what they are there for."""
    text = "# A title, with `code`\n\n[x](missing.md)\n\n```\nquam-jax run --no-such-option 1 && quam-jax nothing\n```\n"
    (tmp_path / "page.md").write_text(text)
    assert anchors(tmp_path / "page.md") == {"a-title-with-code"}
    assert LINK.findall(prose(tmp_path / "page.md")) == ["missing.md"]
    assert [w[1] for w in command_lines(text)] == ["run", "nothing"]
    with pytest.raises(AssertionError, match="--no-such-option"):
        test_commands_and_options_exist(tmp_path / "page.md")


def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    pytest.importorskip("mkdocstrings")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "-f",
            str(ROOT / ".ci" / "mkdocs.yml"),
            "-d",
            str(tmp_path / "site"),
        ],
        check=True,
    )
    page = (tmp_path / "site" / "reference" / "python.html").read_text()
    assert "quantify" in page and "fit_data" in page
