"""Who may use the server."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from convattn.serve.security import COOKIE, Guard, session_value
from convattn.serve.settings import Settings

from .conftest import Server, running

TOKEN = "a-token-of-the-tests"


def client(**settings: Any) -> TestClient:
    return TestClient(
        Guard(PlainTextResponse("hello"), Settings(**settings)), base_url="http://localhost:8000"
    )


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("192.168.1.5:8000", True),
        ("upscale.example:443", True),
        ("attacker.example", False),
        ("localhost.attacker.example", False),
        ("127.0.0.1.attacker.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_host_names_of_others_are_refused(host: str, is_known: bool) -> None:
    guarded = client(allowed_hosts=("upscale.example",))
    assert (guarded.get("/v1/models", headers={"Host": host}).status_code == 200) == is_known


@pytest.mark.parametrize(
    ("method", "headers", "is_allowed"),
    [
        ("POST", {}, True),
        ("POST", {"Origin": "http://localhost:8000"}, True),
        ("POST", {"Origin": "http://localhost:3000"}, False),
        ("POST", {"Origin": "https://attacker.example"}, False),
        ("POST", {"Origin": "null"}, False),
        ("DELETE", {"Origin": "https://attacker.example"}, False),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True),
        ("GET", {"Sec-Fetch-Site": "same-origin"}, True),
    ],
)
def test_other_web_sites_are_refused(method: str, headers: dict[str, Any], is_allowed: bool) -> None:
    assert (client().request(method, "/v1/upscale", headers=headers).status_code == 200) == is_allowed


@pytest.mark.parametrize(
    ("headers", "is_known"),
    [
        ({}, False),
        ({"Authorization": f"Bearer {TOKEN}"}, True),
        ({"Authorization": f"bearer {TOKEN}"}, True),
        ({"Authorization": f"Bearer {TOKEN}x"}, False),
        ({"Authorization": f"Basic {TOKEN}"}, False),
        ({"Authorization": "Bearer "}, False),
        ({"Cookie": f"{COOKIE}={session_value(TOKEN)}"}, True),
        ({"Cookie": f"{COOKIE}={TOKEN}"}, False),
        ({"Cookie": f"{COOKIE}="}, False),
    ],
)
def test_token_is_needed(headers: dict[str, Any], is_known: bool) -> None:
    for path in ("/v1/jobs/x", "/v1/upscale", "/metrics", "/v1/groups/x/results.zip"):
        answer = client(token=TOKEN).get(path, headers=headers)
        assert answer.status_code == (200 if is_known else 401)
    for path in ("/", "/static/app.js", "/healthz"):
        assert client(token=TOKEN).get(path, headers=headers).status_code == 200


def test_every_answer_has_a_strict_policy() -> None:
    for answer in (client().get("/"), client().get("/", headers={"Host": "attacker.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_token_opens_a_server_that_others_reach(tmp_path: Path, png: Callable[..., bytes]) -> None:
    with running(tmp_path / "tmp", host="0.0.0.0") as server:
        token = re.search(r"#token=(\S+)", server.greeting)[1]
        assert server.client.post("/v1/upscale", content=png()).status_code == 401
        assert server.client.post("/v1/session", headers={"Authorization": "Bearer wrong"}).status_code == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert server.client.post("/v1/upscale", content=png(), headers=bearer).status_code == 200
        cookie = server.client.post("/v1/session", headers=bearer).headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
        assert token not in cookie
        assert server.client.get("/v1/models").status_code == 200


def test_a_taken_address_is_one_line(command: Callable[..., Any], server: Server) -> None:
    ended = command("serve", "--port", server.url.rpartition(":")[2])
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "choose another --port" in ended.err
