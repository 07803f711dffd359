"""``convattn serve``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convattn.choices import Precision
from convattn.cli.options import Device, Precisions, with_groups

if TYPE_CHECKING:
    from convattn.serve.settings import Limits

__all__ = ["serve"]


@dataclass(frozen=True)
class Access:
    """Address and access."""

    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=1, max=65535, help="The TCP port.")] = 8000
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CONVATTN_TOKEN",
            help="Token that clients must send; by default a new one if other machines reach the server.",
        ),
    ] = None
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Ask for no token.")] = False
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which clients may address the server; repeatable."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return settings of the server."""
        allowed_hosts = tuple(self.allow_host or ())
        return dict(host=self.host, port=self.port, token=self.token, allowed_hosts=allowed_hosts)


@dataclass(frozen=True)
class Workers:
    """Model and workers."""

    device: Device = "auto"
    precision: Precisions = Precision.auto
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes; by default one a core, at most 4, and one on a GPU."),
    ] = None
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images of equal size upscaled at once; by default 8 on a GPU, else 1."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return settings of the server."""
        precision = self.precision.value
        return dict(device=self.device, precision=precision, workers=self.workers, batch=self.batch)


@dataclass(frozen=True)
class Bounds:
    """Limits."""

    queue: Annotated[int, typer.Option(min=1, help="Jobs that may wait.")] = 32
    jobs_per_client: Annotated[int, typer.Option(min=1, help="Unfinished jobs that one client may have.")] = (
        16
    )
    max_upload: Annotated[int, typer.Option(min=1, metavar="MIB", help="Largest file in MiB.")] = 64
    max_pixels: Annotated[float, typer.Option(metavar="MP", help="Largest image in megapixels.")] = 50
    max_result: Annotated[float, typer.Option(metavar="MP", help="Largest result in megapixels.")] = 400
    max_frames: Annotated[int, typer.Option(min=1, help="Longest video in frames.")] = 600
    keep: Annotated[float, typer.Option(metavar="MINUTES", help="How long results are kept.")] = 15

    def limits(self) -> "Limits":
        """Return the limits of the server."""
        from convattn.serve.settings import Limits

        return Limits(
            upload_bytes=self.max_upload * 2**20,
            pixels=round(self.max_pixels * 1e6),
            result_pixels=round(self.max_result * 1e6),
            frames=self.max_frames,
            waiting=self.queue,
            jobs_per_client=self.jobs_per_client,
            keep_seconds=60 * self.keep,
        )


@with_groups
def serve(access: Access, workers: Workers, bounds: Bounds) -> None:
    """Serve a web page and an HTTP API: convattn serve, then open the address that it prints.

    By default only this machine reaches the server. With another --host,
    clients need the token that is printed, unless you give --no-auth. The
    page works offline and sends nothing to anybody.
    """
    try:
        import python_multipart  # noqa: F401  (FastAPI reads forms with it)

        from convattn.serve.server import start
        from convattn.serve.settings import Settings
    except ModuleNotFoundError as error:
        from convattn.errors import InputError

        raise InputError(
            f"The server needs {error.name}, which is not here; run: pip install 'convattn[serve]'."
        ) from error

    settings = Settings(**access.settings(), **workers.settings(), limits=bounds.limits())
    start(settings, no_auth=access.no_auth)
