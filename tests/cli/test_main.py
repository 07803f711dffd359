"""What the command line offers before any command."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import convattn
from convattn.cli import app


def test_version(command: Callable[..., Any]) -> None:
    ended = command("--version")
    assert (ended.status, ended.out) == (0, f"convattn {convattn.__version__}\n")


def test_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "convattn", "--version"], capture_output=True, text=True)
    assert done.stdout == f"convattn {convattn.__version__}\n"


def test_help_names_every_command(command: Callable[..., Any]) -> None:
    ended = command("--help")
    for name in ("upscale", "train", "evaluate", "export", "degrade", "bench", "doctor", "compare"):
        assert name in ended.out


@pytest.mark.parametrize("words", [[], ["upscale"], ["train"], ["models"], ["models", "show"]])
def test_help_imports_nothing_slow(words: list[str]) -> None:
    script = f"""
import sys
sys.argv[1:] = {[*words, "--help"]}
from convattn.cli import main
try:
    main()
finally:
    print(sorted({{"pydantic", "rich", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_the_list_of_commands_has_their_own_first_lines() -> None:
    for command in get_command(app).commands.values():  # type: ignore[attr-defined]
        first, *_ = command.load().help.split("\n\n")
        assert " ".join(first.split()) == command.help


@pytest.mark.parametrize("words", [("-h",), ("upscale", "-h"), ("models", "-h")])
def test_help_has_a_short_form(command: Callable[..., Any], words: tuple[str, str] | tuple[str]) -> None:
    ended = command(*words)
    assert ended.status == 0
    assert "Usage: convattn" in ended.out


def test_help_groups_the_options(command: Callable[..., Any]) -> None:
    ended = command("upscale", "-h")
    assert ended.out.index("\nOptions:") < ended.out.index("\nComputation:") < ended.out.index("\nVideos:")


@pytest.mark.parametrize(("word", "near"), [("upscal", "upscale"), ("trian", "train"), ("doctr", "doctor")])
def test_a_misspelt_command_gets_a_suggestion(command: Callable[..., Any], word: str, near: str) -> None:
    ended = command(word)
    assert ended.status == 2
    assert near in ended.err
    assert ended.err.count("\n") == 1


def test_a_command_of_a_missing_package_says_how_to_get_it(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convattn.cli.find_spec", lambda name: None if name == "convattn_yolo" else object())
    assert "pip install convattn-yolo" in command("compare", "yolo26n.yaml").err
    assert "compare" not in command("--help").out


def test_a_usage_error_imports_no_framework() -> None:
    """Neither what computes nor what typer itself needs for right words only."""
    script = """
import sys
from convattn.cli import main
sys.argv[1:] = ["upscal"]
try:
    main()
finally:
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not {"torch", "pydantic", "rich", "convattn.cli.upscale"} & set(done.stdout.split())


def test_an_unknown_option_is_one_line(command: Callable[..., Any]) -> None:
    ended = command("upscale", "x.png", "--sclae", "2")
    assert ended.status == 2
    assert "Did you mean --scale?" in ended.err
    assert ended.err.count("\n") == 1
    assert "--scale" in ended.err


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (["upscale", "a.png", "--existing", "ask"], ["refuse", "skip", "overwrite"]),
        (["upscale", "a.png", "--precision", "fp8"], ["auto", "fp32", "bf16", "fp16"]),
        (["bench", "attention", "--precision", "fp8"], ["auto", "fp32", "bf16", "fp16"]),
    ],
)
def test_a_wrong_choice_is_answered_with_the_choices(
    command: Callable[..., Any], words: list[str], choices: list[str]
) -> None:
    ended = command(*words)
    assert ended.status == 2
    assert all(f"'{choice}'" in ended.err for choice in choices)
    assert ended.err.count("\n") == 1


def test_doctor_tells_versions_device_and_kernels(command: Callable[..., Any]) -> None:
    ended = command("doctor")
    assert ended.status == 0
    for line in (f"convattn     {convattn.__version__}", "device", "CPU kernels", "free memory", "torch"):
        assert line in ended.out


def test_doctor_says_how_to_get_what_is_missing(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convattn.diagnosis.find_spec", lambda name: None if name == "av" else object())
    out = " ".join(command("doctor").out.split())
    assert 'missing: av; pip install "convattn[video]"' in out


def test_a_torchvision_of_another_torch_is_named(tmp_path: Path) -> None:
    """Doctor lists it, and training ends in one sentence."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "CONVATTN_YOLO_STARTUP": "0",
    }
    for words, reply in {
        "doctor": "torchvision",
        "train esc-nano data=x scale=2": "convattn: Lightning cannot",
    }.items():
        run = [sys.executable, "-m", "convattn", *words.split()]
        done = subprocess.run(run, capture_output=True, text=True, env=environment)
        assert any(line.startswith(reply) for line in (done.stdout + done.stderr).splitlines()), done.stderr
        assert "Traceback" not in done.stderr
