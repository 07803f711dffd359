"""The server process: it listens, and stops cleanly at a signal."""

import signal
import socket
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from convattn.errors import InputError
from convattn.serve.app import create_app
from convattn.serve.settings import Settings, choose_token

__all__ = ["run", "start"]

_MOST_CONNECTIONS = 1000
_KEEP_ALIVE_SECONDS = 15


def start(settings: Settings, *, no_auth: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C; where other machines reach the server, with a token.

    Args:
        settings: How; a token is made where one is needed.
        no_auth: Whether nobody needs a token.

    Raises:
        InputError: The token is too short, or the address cannot be listened on.
    """
    settings = replace(settings, token=choose_token(settings.host, settings.token, no_auth))
    _check_address(settings)
    run(create_app(settings), settings)


def run(app: FastAPI, settings: Settings) -> None:
    """Serve an application until SIGTERM or Ctrl-C."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.shutdown_seconds),
    )
    for sig in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it has stopped
        signal.signal(sig, signal.SIG_IGN)
    _Server(config, app, settings).run()


class _Server(uvicorn.Server):
    """Prints its address, and tells the queue first when a signal asks the server to stop."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._app, self._settings = app, settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            print(f"convattn serves at {_address(self._settings)} (Ctrl-C stops it)", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Cancel the jobs that wait; those that run have some seconds to finish."""
        stop_soon = getattr(self._app.state, "stop_soon", None)
        if stop_soon:
            stop_soon()
        super().handle_exit(sig, frame)


def _address(settings: Settings) -> str:
    """What a user opens; the token is behind the #, which browsers do not send."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and "[" not in host else host
    return f"http://{host}:{settings.port}/" + (f"#token={settings.token}" if settings.token else "")


def _check_address(settings: Settings) -> None:
    """Raise an InputError, and no traceback later, where the address is taken or unknown."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        raise InputError(
            f"The address {settings.host}:{settings.port} cannot be listened on: {error.strerror}; "
            "choose another --port or --host."
        ) from error
