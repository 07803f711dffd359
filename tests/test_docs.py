"""README and the documentation: every Python block parses, and every command line has options that exist."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from convattn.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for folder in (".", "docs", "docs/zh", "examples/real", "packages/convattn-yolo")
    for path in sorted((ROOT / folder).glob("*.md"))
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\w+=\S+ )*(?:srun )?convattn (.*)")


def _blocks(*languages: str) -> Iterator[tuple[Path, str]]:
    for path in PAGES:
        for language, text in BLOCK.findall(path.read_text(encoding="utf-8")):
            if language in languages:
                yield path, text


def _commands() -> Iterator[tuple[Path, str, bool]]:
    """The ``convattn`` command lines in shell blocks, and in running text; whether each is complete."""
    for path, text in _blocks("sh", "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            if (found := COMMAND.match(line)) and "…" not in line:
                yield path, found[1], True
    for path in PAGES:
        for text in re.findall(r"`convattn ([^`]+)`", BLOCK.sub("", path.read_text(encoding="utf-8"))):
            yield path, " ".join(text.split()), False


def _name(case: tuple[Path, str] | tuple[Path, str, bool]) -> str:
    return f"{case[0].relative_to(ROOT).as_posix()}: {case[1].strip().splitlines()[0]}"


@pytest.mark.parametrize("case", list(_blocks("python", "py")), ids=_name)
def test_python_parses(case: tuple[Path, str]) -> None:
    ast.parse(case[1])


@pytest.mark.parametrize("case", list(_commands()), ids=_name)
def test_command_line_parses(case: tuple[Path, str, bool]) -> None:
    """The command line's own parser takes it; what is quoted in running text may lack arguments."""
    _, line, is_complete = case
    command, words = get_command(app), shlex.split(line, comments=True)
    while words and hasattr(command, "commands"):
        name, *words = words
        if name.startswith("-"):
            assert name in {option for parameter in command.params for option in parameter.opts}
            return
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
        command = command.load() if hasattr(command, "load") else command
    command.make_context("convattn", words, resilient_parsing=not is_complete)


def test_recipe_keys_exist() -> None:
    config = pytest.importorskip("convattn.training.config")
    for path, line, _ in _commands():
        if line.startswith("train "):
            keys = {word.partition("=")[0] for word in shlex.split(line, comments=True) if "=" in word}
            assert keys <= set(config.Recipe.model_fields), path


def test_yolo_arguments_exist() -> None:
    cfg = pytest.importorskip("ultralytics.cfg")
    for path, text in _blocks("sh"):
        for line in text.splitlines():
            if line.startswith("yolo "):
                _, mode, *settings = shlex.split(line, comments=True)
                assert mode in {*cfg.MODES, *cfg.TASKS}, path
                assert {setting.partition("=")[0] for setting in settings} <= set(cfg.DEFAULT_CFG_DICT), path
