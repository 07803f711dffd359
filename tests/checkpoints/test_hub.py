"""Downloads from a server that cuts connections, lies, stalls or is not there, onto disks that are full."""

import errno
import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from convattn.checkpoints import hub
from convattn.errors import InputError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file under every path, with the errors that a test sets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.status = 200
        self.cut_after: list[int] = []  # bytes, for each of the first connections
        self.pause = 0.0  # seconds before the second half
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []  # path and Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that leave."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, header = self.server, self.headers.get("Range")
        server.requests.append((self.path, header))
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(header.removeprefix("bytes=").rstrip("-")) if header and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cut_after:
            self.wfile.write(body[: server.cut_after.pop(0)])
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        time.sleep(server.pause)
        self.wfile.write(body[half:])

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVATTN_MIRROR", raising=False)
    monkeypatch.setattr(hub, "_PAUSE", 0.001)
    return tmp_path / "cache"


def assert_clean(cache: Path, *names: str) -> None:
    """Nothing but these files and locks is left."""
    left = {path.name for path in (cache / "models").iterdir() if path.suffix != ".lock"}
    assert left == set(names)


def test_a_file_is_downloaded_once(server: Server, cache: Path) -> None:
    for _ in range(2):
        path = hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
        assert path == cache / "models" / "a.pth"
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert_clean(cache, "a.pth")


def test_a_complete_cache_needs_no_permission_to_write(server: Server, cache: Path) -> None:
    path = hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
    (cache / "models" / "a.pth.lock").unlink(missing_ok=True)
    hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
    assert [*path.parent.iterdir()] == [path]


def test_cut_connections_resume(server: Server) -> None:
    server.cut_after = [100_000, 0, 200_000, 1]
    assert hub.fetch(f"{server.url}/a.pth", sha256=SHA256).read_bytes() == CONTENT
    assert [header for _, header in server.requests] == [
        None,
        "bytes=100000-",
        "bytes=100000-",
        "bytes=300000-",
        "bytes=300001-",
    ]


def test_a_killed_download_resumes(server: Server, cache: Path) -> None:
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "partial-a.pth").write_bytes(CONTENT[:5000])
    assert hub.fetch(f"{server.url}/a.pth", sha256=SHA256).read_bytes() == CONTENT
    assert server.requests == [("/a.pth", "bytes=5000-")]


@pytest.mark.parametrize("partial", [b"of another file" * 10, CONTENT + b"longer", CONTENT])
def test_a_wrong_partial_file_is_replaced(server: Server, cache: Path, partial: bytes) -> None:
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "partial-a.pth").write_bytes(partial)
    assert hub.fetch(f"{server.url}/a.pth", sha256=SHA256).read_bytes() == CONTENT
    assert_clean(cache, "a.pth")


def test_a_server_without_ranges_sends_everything_again(server: Server) -> None:
    server.ranges, server.cut_after = False, [100_000]
    assert hub.fetch(f"{server.url}/a.pth", sha256=SHA256).read_bytes() == CONTENT


def test_a_connection_that_is_always_cut_is_one_sentence(server: Server) -> None:
    server.cut_after = [0] * 20
    with pytest.raises(
        InputError, match=r"cannot be downloaded: .*CONVATTN_MIRROR sets a mirror\.$"
    ) as refusal:
        hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
    assert "\n" not in str(refusal.value)


def test_a_wrong_hash_is_refused_and_not_kept(server: Server, cache: Path) -> None:
    server.content = b"something else"
    with pytest.raises(InputError, match=rf"not {SHA256}: a proxy or mirror"):
        hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
    assert_clean(cache)


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server) -> None:
    path = hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert hub.fetch(f"{server.url}/a.pth", sha256=SHA256).read_bytes() == CONTENT


def test_an_unknown_hash_is_remembered_and_said(server: Server, cache: Path) -> None:
    seen: list[bytes] = []
    with pytest.warns(UserWarning, match=f"{SHA256} is remembered"):
        path = hub.fetch(f"{server.url}/a.pth", check=lambda file: seen.append(file.read_bytes()))
    assert seen == [CONTENT]
    assert_clean(cache, "a.pth", "a.pth.sha256")
    path.unlink()
    server.content = CONTENT + b"changed"
    with pytest.raises(InputError, match=r"may have replaced it; delete .*a\.pth\.sha256"):
        hub.fetch(f"{server.url}/a.pth")


def test_a_copied_file_is_taken_if_it_loads(server: Server, cache: Path) -> None:
    """As on a machine without internet: the file comes from elsewhere, without its remembered hash."""
    path = cache / "models" / "a.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    with pytest.warns(UserWarning, match=f"{SHA256} is remembered"):
        assert hub.fetch(f"{server.url}/a.pth") == path
    assert server.requests == []

    def refuse(path: Path) -> None:
        if path.read_bytes() != CONTENT:
            raise InputError("It is damaged.")

    path.with_name("a.pth.sha256").unlink()
    path.write_bytes(CONTENT[:-1])
    with pytest.warns(UserWarning, match=f"{SHA256} is remembered"):
        assert hub.fetch(f"{server.url}/a.pth", check=refuse).read_bytes() == CONTENT


def test_an_unusable_file_of_unknown_hash_is_not_kept(server: Server, cache: Path) -> None:
    def refuse(path: Path) -> None:
        raise InputError("It is a page.")

    with pytest.raises(InputError, match=r"is not a model: It is a page\. A proxy or mirror"):
        hub.fetch(f"{server.url}/a.pth", check=refuse)
    assert_clean(cache)


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (503, 4)])
def test_what_the_server_answers_is_said(server: Server, status: int, attempts: int) -> None:
    server.status = status
    with pytest.raises(InputError, match=rf"the server answers {status}|Service Unavailable|503"):
        hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
    assert len(server.requests) == attempts


def test_a_slow_server_is_waited_for_and_a_stalled_one_is_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.pause = 0.2
    assert hub.fetch(f"{server.url}/slow.pth", sha256=SHA256).read_bytes() == CONTENT
    monkeypatch.setattr(hub, "_TIMEOUT", 0.05)
    server.pause, server.ranges, server.content = 1.0, False, b"ab"
    with pytest.raises(InputError, match="timed out"):
        hub.fetch(f"{server.url}/stalled.pth", sha256=SHA256)


def test_offline_is_one_sentence(cache: Path) -> None:
    with pytest.raises(
        InputError, match=r"Without a connection, run `convattn models download` elsewhere"
    ) as refusal:
        hub.fetch("http://127.0.0.1:9/a.pth", sha256=SHA256)
    assert "\n" not in str(refusal.value)
    assert str(cache / "models") in str(refusal.value)


def test_a_full_disk_is_one_sentence_and_leaves_room(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    open_ = Path.open

    class Full:
        def __init__(self, file: Any) -> None:  # type: ignore[no-untyped-def]
            self.file = file

        def __enter__(self) -> Any:  # type: ignore[no-untyped-def]
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            nonlocal written
            written += self.file.write(data)
            if written > 300_000:
                raise OSError(errno.ENOSPC, "No space left on device")

    def fill(path: Path, mode: str = "r", *args: object, **options: object) -> object:
        file = open_(path, mode, *args, **options)  # type: ignore[call-overload]
        return Full(file) if path.name == "partial-a.pth" and mode in ("wb", "ab") else file

    monkeypatch.setattr(Path, "open", fill)
    with pytest.raises(InputError, match="No space left on device; free some space or set CONVATTN_CACHE"):
        hub.fetch(f"{server.url}/a.pth", sha256=SHA256)
    assert_clean(cache)


def test_a_cache_that_cannot_be_made_is_one_sentence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVATTN_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be written"):
        hub.fetch(f"{server.url}/a.pth", sha256=SHA256)


def _fetch_in_a_process(url: str) -> None:
    code = "import sys; from convattn.checkpoints import hub; hub.fetch(sys.argv[1], sha256=sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, url, SHA256], check=True)


def _fetch_here(url: str) -> None:
    hub.fetch(url, sha256=SHA256)


@pytest.mark.parametrize("fetch", [_fetch_in_a_process, _fetch_here])
def test_two_at_once_download_once(server: Server, fetch: Callable[[str], None]) -> None:
    server.pause = 0.3
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fetch, [f"{server.url}/a.pth"] * 2))
    assert len(server.requests) == 1
    assert hub.fetch(f"{server.url}/a.pth", sha256=SHA256).read_bytes() == CONTENT


def test_a_mirror_takes_the_place_of_github(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVATTN_MIRROR", f"{server.url}/https://github.com/")
    hub.fetch("https://github.com/user/repo/a.pth", sha256=SHA256)
    assert server.requests == [("/https://github.com/user/repo/a.pth", None)]


def test_a_proxy_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    hub.fetch("http://far.away.invalid/a.pth", sha256=SHA256)
    assert server.requests == [("http://far.away.invalid/a.pth", None)]


def test_the_cache_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVATTN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert hub.cache_dir().name == "convattn"
    monkeypatch.setenv("CONVATTN_CACHE", "~/weights")
    assert hub.cache_dir() == Path.home() / "weights"
