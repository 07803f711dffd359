"""Progress: what it counts, and what a terminal shows of it."""

import io
import pickle

import pytest
from rich.console import Console

from convattn.progress import Steps, share
from convattn.progress.bar import progress_bar


def test_steps_are_a_fraction_that_can_be_sent_to_another_process() -> None:
    half = pickle.loads(pickle.dumps(Steps(3, 6)))
    assert (half, half.done, half.total) == (0.5, 3, 6)
    assert Steps(7, 6) == 1  # a file may have more frames than it declares


def test_a_part_of_the_work_is_no_longer_counted() -> None:
    seen: list[float] = []
    share(seen.append, 1, 2)(Steps(3, 6))
    assert seen == [0.75]
    assert not isinstance(seen[0], Steps)


@pytest.mark.parametrize(
    ("unit", "total", "parts", "shown"),
    [
        ("frames", None, [Steps(2, 50), Steps(27, 50), Steps(50, 50)], ["50/50", "frames/s"]),
        ("bytes", None, [Steps(10**6, 10**7), Steps(10**7, 10**7)], ["10.0/10.0 MB", "B/s"]),
        ("images", 4, [0.125, 0.5, 1.0], ["4/4", "images/s"]),
    ],
)
def test_a_terminal_shows_the_count_and_the_rate(
    unit: str, total: int | None, parts: list[float], shown: list[str]
) -> None:
    screen = io.StringIO()
    with progress_bar(Console(file=screen, force_terminal=True, width=120), "Upscaling", unit, total) as show:
        for part in parts:
            show(part)
    assert all(words in screen.getvalue() for words in shown)


def test_a_file_gets_no_bar() -> None:
    log = io.StringIO()
    with progress_bar(Console(file=log), "Upscaling", "frames") as show:
        show(Steps(1, 2))
    assert not log.getvalue().strip()
