"""Any storage behaves like a folder."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convattn.cluster.storage import Address
from convattn.errors import InputError


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def places_in(address: str) -> list[str]:
    return [place.as_posix() for place in Address(address).files()]


def write(address: str, content: bytes) -> None:
    with Address(address).replacing() as path:
        path.write_bytes(content)


def test_files_come_back_with_their_places(root: str) -> None:
    places = ["b.png", "a/b/c.png", "a/d.png"]
    for number, place in enumerate(places):
        write(f"{root}/in/{place}", bytes([number]))
    assert sorted(places_in(f"{root}/in")) == sorted(places)
    with Address(f"{root}/in/a/d.png").local_copy() as path:
        assert path.read_bytes() == b"\x02"
        assert path.suffix == ".png"


def test_folders_are_distinguished_from_files(root: str) -> None:
    write(f"{root}/in/a.png", b"x")
    assert Address(f"{root}/in").is_dir()
    assert not Address(f"{root}/in/a.png").is_dir()
    assert Address(f"{root}/in/a.png").exists()
    assert not Address(f"{root}/in/b.png").exists()


def test_nothing_appears_where_writing_fails(root: str) -> None:
    def fail_halfway() -> None:
        with Address(f"{root}/out/a.png").replacing() as path:
            if not root.startswith("/"):  # a local file is replaced by whoever writes it
                path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert not Address(f"{root}/out/a.png").exists()


def test_a_missing_file_is_one_sentence(root: str) -> None:
    if root.startswith("/"):
        pytest.skip("a local file is read by whoever asked for it")
    with pytest.raises(InputError, match="There is no file"), Address(f"{root}/none.png").local_copy():
        pass


def test_more_keys_than_a_page_holds(bucket: str) -> None:
    import s3fs

    storage = s3fs.S3FileSystem()
    for number in range(7):
        storage.pipe_file(f"{bucket}/in/{number}.png", b"x")
    pages = []
    call, ask = storage.call_s3, s3fs.S3FileSystem.call_s3

    def three_at_a_time(self: Any, method: str, *args: Any, **query: Any) -> Any:
        pages.append(method)
        return call(method, *args, MaxKeys=3, **query)

    try:
        s3fs.S3FileSystem.call_s3 = three_at_a_time
        assert sorted(places_in(f"{bucket}/in")) == [f"{number}.png" for number in range(7)]
    finally:
        s3fs.S3FileSystem.call_s3 = ask
    assert pages.count("list_objects_v2") == 3


def test_an_unknown_protocol_is_one_sentence() -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        places_in("nonsense://x")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_missing_credentials_are_one_sentence(
    bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv(variable)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"cannot be .*check the address and rights"):
        places_in(f"{bucket}/in/")


def test_an_empty_prefix_holds_nothing_and_a_wrong_bucket_is_one_sentence(bucket: str) -> None:
    assert places_in(f"{bucket}/none/") == []
    with pytest.raises(InputError):
        places_in("s3://no-such-bucket-here/in/")
