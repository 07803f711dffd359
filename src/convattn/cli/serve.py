"""``convattn serve``."""

from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The TCP port.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CONVATTN_TOKEN",
            help="What clients must present; by default a new one where other machines reach the server.",
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let everybody in who reaches the server.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which clients may address the server; repeatable."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|mps", help="auto takes a GPU if there is one.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(metavar="auto|fp32|bf16|fp16", help="auto is fp16 on CUDA and fp32 elsewhere.")
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes; by default one a core, at most 4, and one on a GPU."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images of equal size upscaled at once; by default 8 on a GPU, else 1."),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Jobs that may wait.")] = 32,
    jobs_per_client: Annotated[int, typer.Option(min=1, help="Unfinished jobs of a client address.")] = 16,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MIB", help="Largest file in MiB.")] = 64,
    max_pixels: Annotated[float, typer.Option(metavar="MP", help="Largest image in megapixels.")] = 50,
    max_result: Annotated[float, typer.Option(metavar="MP", help="Largest result in megapixels.")] = 400,
    max_frames: Annotated[int, typer.Option(min=1, help="Longest video in frames.")] = 600,
    keep: Annotated[float, typer.Option(metavar="MINUTES", help="How long results are kept.")] = 15,
) -> None:
    """Serve a web page and an HTTP API: convattn serve, then open the address that it prints.

    Only this machine reaches the server, unless --host says otherwise; then
    clients need a token, which is printed, or --no-auth. The page works
    offline and sends nothing to anybody. docs/serve.md has examples.
    """
    try:
        import python_multipart  # noqa: F401  (FastAPI reads forms with it)

        from convattn.serve.server import start
        from convattn.serve.settings import Limits, Settings
    except ModuleNotFoundError as error:
        from convattn.errors import InputError

        raise InputError(
            f"The server needs {error.name}, which is not here; run: pip install 'convattn[serve]'."
        ) from error

    settings = Settings(
        host=host,
        port=port,
        token=token,
        allowed_hosts=tuple(allow_host or ()),
        device=device,
        precision=precision,
        workers=workers,
        batch=batch,
        limits=Limits(
            upload_bytes=max_upload * 2**20,
            pixels=round(max_pixels * 1e6),
            result_pixels=round(max_result * 1e6),
            frames=max_frames,
            waiting=queue,
            jobs_per_client=jobs_per_client,
            keep_seconds=60 * keep,
        ),
    )
    start(settings, no_auth=no_auth)
