"""Who may talk to the server, and what browsers may do with its answers."""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convattn.serve.problems import Problem
from convattn.serve.settings import Settings

__all__ = ["COOKIE", "Guard", "refusal", "session_value"]

COOKIE = "convattn_session"

_OPEN = ("/", "/docs", "/healthz", "/openapi.json", "/favicon.ico")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def session_value(token: str) -> str:
    """Return what the page's cookie holds: it proves that the token was known, and does not tell it."""
    return hmac.new(token.encode(), b"convattn session", hashlib.sha256).hexdigest()


class Guard:
    """Refuses requests by their host, their origin and their token, and adds headers to every answer.

    A web site that a user visits can make the browser send requests to servers on the user's machine. The
    host check stops those that reach it by a name of their own (DNS rebinding), the origin check those that
    post to it across sites.

    Args:
        app: What answers the others.
        settings: The server's address, its names and its token.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = settings.token
        self._names = {"localhost", settings.host.lower(), *(name.lower() for name in settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refusal(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if not self._is_own_host(headers.getlist("host")):
            return refusal(Problem("host-unknown", {}))
        if not _is_same_origin(scope["method"], headers):
            return refusal(Problem("other-site", {}))
        is_open = scope["path"] in _OPEN or scope["path"].startswith("/static/")
        if self._token and not is_open and not self._knows_token(headers, self._token):
            return refusal(Problem("token-wrong", {}), {"WWW-Authenticate": "Bearer"})
        return None

    def _is_own_host(self, hosts: list[str]) -> bool:
        """Whether a request names this server; numbers cannot be rebound as names can."""
        try:
            name = urlsplit(f"//{hosts[0]}").hostname or ""
        except (IndexError, ValueError):
            return False
        return len(hosts) == 1 and (name in self._names or _is_address(name))

    def _knows_token(self, headers: Headers, token: str) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        bearer = given.strip() if scheme.lower() == "bearer" else ""
        return _equal(bearer, token) | _equal(_session_of(headers.get("cookie", "")), session_value(token))


def refusal(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused."""
    content = {"detail": problem.detail, "code": problem.code, "values": problem.values}
    return JSONResponse(content, problem.status, headers)


def _equal(given: str, expected: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _session_of(cookies: str) -> str:
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(method: str, headers: Headers) -> bool:
    """Whether a request comes from the server's own page, from no page, or follows a link."""
    is_safe = method in _SAFE_METHODS
    site = headers.get("sec-fetch-site", "none")
    if site == "cross-site" and not (is_safe and headers.get("sec-fetch-mode") == "navigate"):
        return False
    origin = headers.get("origin")
    return is_safe or origin is None or urlsplit(origin).netloc == headers["host"]
