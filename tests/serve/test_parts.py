"""Parts of the server by themselves."""

import asyncio
import io
import multiprocessing
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from convattn.images.io import Image, read_image, write_image
from convattn.serve.archive import stream_zip
from convattn.serve.job_queue import JobQueue
from convattn.serve.jobs import State
from convattn.serve.jxl import size_of_jxl
from convattn.serve.kinds import Kind, sniff
from convattn.serve.messages import Failed, Finished, Measured, Setup, Task
from convattn.serve.metrics import Metrics
from convattn.serve.options import Options, clean_name
from convattn.serve.problems import Problem, RejectedError
from convattn.serve.settings import Limits, choose_token


@given(st.text())
def test_clean_names_stay_below_their_folder(name: str) -> None:
    clean = clean_name(name)
    assert not Path(clean).is_absolute()
    assert ".." not in Path(clean).parts
    assert "\\" not in clean
    assert clean.isprintable() or not clean.isascii()
    assert clean_name(clean) == clean
    clean.encode()


@given(st.dictionaries(st.sampled_from("abcABC"), st.binary(max_size=10**5)))
def test_archive_is_read_by_zipfile(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = [("same.png", folder / name) for name in contents]
    with zipfile.ZipFile(io.BytesIO(b"".join(stream_zip(files)))) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == list(contents.values())
        assert len({name.casefold() for name in archive.namelist()}) == len(contents)


def test_archive_is_sent_in_small_pieces(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(4 * 2**20))
    assert max(map(len, stream_zip([("large", tmp_path / "large")]))) < 2**19


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\x89PNG\r\n\x1a\n", ".png"),
        (b"RIFF....WEBPVP8 ", ".webp"),
        (b"RIFF....AVI LIST", ".avi"),
        (b"RIFF....WAVEfmt ", ".image"),
        (b"....ftypavif", ".avif"),
        (b"....ftypmif1....avifmiaf", ".avif"),
        (b"....ftypheic", ".image"),
        (b"....ftypqt  ", ".mp4"),
        (b"#EXTM3U", ".image"),
        (b"ffconcat version 1.0", ".image"),
        (b"", None),
    ],
)
def test_kind_by_first_bytes(head: bytes, suffix: str | None) -> None:
    assert sniff(head) == (Kind(suffix) if suffix else None)


@pytest.mark.parametrize("size", [(1, 1), (48, 32), (300, 300), (640, 360), (777, 9001), (64, 256)])
def test_size_of_jpeg_xl_is_known_from_its_head(size: tuple[int, int]) -> None:
    pytest.importorskip("pillow_jxl")
    file = io.BytesIO()
    PILImage.new("RGB", size).save(file, "JXL")
    assert size_of_jxl(file.getvalue()[:64]) == size


def test_token_is_made_where_others_reach_the_server() -> None:
    assert choose_token("127.0.0.1", None, False) is None
    assert choose_token("0.0.0.0", None, True) is None
    made = choose_token("0.0.0.0", None, False)
    assert made is not None
    assert len(made) >= 32
    assert made != choose_token("0.0.0.0", None, False)
    with pytest.raises(ValueError, match="16 characters"):
        choose_token("0.0.0.0", "secret", False)


class Jobs:
    """A queue without workers."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.queue = JobQueue(folder, Limits(**limits), Metrics())

    def add(self, client: str = "client", **options: Any) -> Any:
        with self.queue.place(client) as create:
            job = create(Kind(".png"), Options(**options))
            job.source.write_bytes(b"12345678")
            self.queue.submit(job)
        return job

    async def take(self, most: int = 1) -> list[Any]:
        return await self.queue.take(most)


def test_clients_take_turns(tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path)
        many = [jobs.add("many") for _ in range(3)]
        one = jobs.add("one")
        assert [(await jobs.take())[0] for _ in range(4)] == [many[0], one, many[1], many[2]]

    asyncio.run(check())


def test_batches_have_the_same_options(tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path)
        first, other, *same = (
            jobs.add(scale=scale, name=name) for scale, name in [(2, "a"), (3, "b"), (2, "c"), (2, "d")]
        )
        assert await jobs.take(2) == [first, same[0]]
        assert await jobs.take(2) == [other]
        assert await jobs.take(2) == same[1:]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("limits", "client"),
    [({"waiting": 2}, "other"), ({"jobs_per_client": 2}, "client"), ({"stored_bytes": 16}, "other")],
)
def test_too_much_is_refused_for_some_time(tmp_path: Path, limits: dict[str, int], client: str) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path, **limits)
        first, _ = jobs.add(), jobs.add()
        with pytest.raises(RejectedError) as error:
            jobs.add(client)
        assert (error.value.problem.status, error.value.retry_after >= 1) == (429, True)
        jobs.queue.forget(first)
        assert jobs.add(client)

    asyncio.run(check())


def test_files_that_are_on_their_way_have_their_place(tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path, waiting=1)
        with jobs.queue.place("slow"), pytest.raises(RejectedError):
            jobs.add()
        assert jobs.add()
        assert len(list(tmp_path.iterdir())) == 1

    asyncio.run(check())


def test_a_stopping_server_takes_no_jobs(tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path)
        running = jobs.add()
        await jobs.take()
        waiting = jobs.add()
        with jobs.queue.place("late") as create:
            job = create(Kind(".png"), Options())
            job.source.touch()
            jobs.queue.drain()
            with pytest.raises(RejectedError, match="about to stop"):
                jobs.queue.submit(job)
        assert (running.state, waiting.state) == (State.running, State.cancelled)
        assert [folder.name for folder in tmp_path.iterdir()] == [running.id]

    asyncio.run(check())


def test_results_expire_and_abandoned_jobs_are_cancelled(tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path, keep_seconds=0.2, abandoned_seconds=0.2)
        expiry = asyncio.create_task(jobs.queue.expire())
        abandoned, watched = jobs.add(), jobs.add()
        with watched.watched():
            await asyncio.sleep(0.6)
            assert (abandoned.state, watched.state) == (State.cancelled, State.waiting)
        jobs.queue.cancel(watched)
        await asyncio.sleep(0.6)
        with pytest.raises(RejectedError, match="no such job"):
            jobs.queue.get(watched.id)
        assert list(tmp_path.iterdir()) == []
        expiry.cancel()

    asyncio.run(check())


def test_those_that_shared_a_batch_with_a_crash_are_tried_alone(tmp_path: Path) -> None:
    async def check() -> None:
        jobs = Jobs(tmp_path)
        poisonous, innocent = jobs.add(), jobs.add()
        batch = await jobs.take(2)
        jobs.queue.lose(batch, Problem("crashed", {}))
        alone = [await jobs.take(2), await jobs.take(2)]
        assert sorted(map(len, alone)) == [1, 1]
        jobs.queue.lose([poisonous], Problem("crashed", {}))
        innocent.result = innocent.source
        jobs.queue.handle(Finished(innocent.id, innocent.source, 1.0))
        assert (poisonous.state, innocent.state) == (State.failed, State.done)

    asyncio.run(check())


@pytest.fixture
def computer(tmp_path: Path) -> Callable[..., list[Any]]:
    """Computes tasks in this process; gives the messages that a server would receive."""
    from convattn.serve.compute import Computer

    def compute(tasks: list[Task], limits: Limits | None = None) -> list[Any]:
        ours, theirs = multiprocessing.Pipe()
        worker = Computer(theirs, Setup("cpu", "auto", tmp_path, limits or Limits()))
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        ours.recv()
        ours.send((tasks, 1))
        messages = list(iter(ours.recv, None))
        ours.send(None)
        thread.join()
        return messages

    return compute


def task(folder: Path, name: str, pixels: np.ndarray, **options: Any) -> Task:
    (folder / name).mkdir()
    write_image(Image(pixels), folder / name / "source.png")
    return Task(name, folder / name / "source.png", Options(scale=2, **options))


def test_batch_of_equal_sizes_gives_what_each_alone_gives(
    tmp_path: Path, computer: Callable[..., Any]
) -> None:
    random = np.random.default_rng()
    shapes = [(20, 30, 3), (20, 30, 3), (20, 30, 4), (20, 30, 3), (30, 20, 3), (20, 30, 4), (20, 30, 1)]
    images = [random.integers(0, 255, shape, np.uint8) for shape in shapes]
    together = computer([task(tmp_path, f"t{i}", image) for i, image in enumerate(images)])
    finished = {m.id: read_image(m.result).pixels for m in together if isinstance(m, Finished)}
    assert len(finished) == len(images)
    for i, image in enumerate(images):
        *_, alone = computer([task(tmp_path, f"a{i}", image)])
        difference = read_image(alone.result).pixels.astype(int) - finished[f"t{i}"]
        assert np.abs(difference).max() <= 1


def test_failure_in_a_batch_is_of_one_only(tmp_path: Path, computer: Callable[..., Any]) -> None:
    good, bad = (task(tmp_path, name, np.zeros((9, 9, 3), np.uint8)) for name in ("good", "bad"))
    bad.source.write_bytes(bad.source.read_bytes()[:40])
    messages = computer([bad, good])
    assert [m.id for m in messages if isinstance(m, Failed)] == ["bad"]
    assert [m.id for m in messages if isinstance(m, Finished)] == ["good"]


def test_size_is_known_before_anything_is_decoded(tmp_path: Path, computer: Callable[..., Any]) -> None:
    one = task(tmp_path, "one", np.zeros((30, 40, 3), np.uint8))
    assert isinstance(computer([one])[0], Measured)
    (failed,) = computer([one], Limits(pixels=1199))
    assert failed.problem.code == "image-too-large"
