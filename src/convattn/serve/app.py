"""The application: page, API, health and metrics."""

from asyncio import CancelledError, create_task, get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from convattn import __version__
from convattn.serve.api import router
from convattn.serve.job_queue import JobQueue
from convattn.serve.messages import Setup
from convattn.serve.metrics import Metrics
from convattn.serve.pool import Pool
from convattn.serve.problems import Problem, RejectedError
from convattn.serve.security import Guard, refusal
from convattn.serve.settings import Settings
from convattn.serve.storage import temporary_folder

__all__ = ["create_app"]

_STATIC = Path(__file__).parent / "static"
_REVALIDATE = {"Cache-Control": "no-cache"}


class Health(BaseModel):
    """Whether the server works."""

    status: str
    workers: int
    waiting: int
    running: int


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the ASGI application.

    Its state has ``queue`` and ``pool`` while it runs, and ``ready``: what the workers say of themselves.

    Args:
        settings: How it runs; by default for this machine only.
    """
    settings = settings or Settings()
    app = FastAPI(
        title="convattn",
        version=__version__,
        summary="Upscale images and videos.",
        lifespan=_run_workers,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.include_router(router)
    app.add_exception_handler(RejectedError, _explain_rejection)
    app.add_exception_handler(RequestValidationError, _explain_validation)
    app.add_middleware(Guard, settings=settings)
    app.add_api_route("/healthz", _health, summary="Health", responses={503: {"model": Health}})
    app.add_api_route("/metrics", _metrics, summary="Figures for Prometheus", response_class=_PrometheusText)
    app.add_api_route("/", _page("index.html"), include_in_schema=False)
    app.add_api_route("/docs", _page("docs.html"), include_in_schema=False)
    app.add_api_route("/favicon.ico", _page("icon.svg"), include_in_schema=False)
    app.mount("/static", _StaticFiles(directory=_STATIC))
    return app


@asynccontextmanager
async def _run_workers(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    with temporary_folder() as folder:
        queue = JobQueue(folder, settings.limits, app.state.metrics)
        setup = Setup(settings.device, settings.precision, folder, settings.limits)
        pool = Pool(queue, setup, settings.workers, settings.batch)
        expiry = create_task(queue.expire())
        try:
            app.state.queue, app.state.pool = queue, pool
            app.state.stop_soon = partial(get_running_loop().call_soon_threadsafe, queue.drain)
            app.state.ready = await pool.ready
            yield
        finally:
            queue.drain()
            expiry.cancel()
            with suppress(CancelledError):
                await expiry
            await pool.stop()


async def _explain_rejection(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RejectedError)
    request.app.state.metrics.rejected.labels(str(error.problem.status)).inc()
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return refusal(error.problem, headers)


async def _explain_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    reasons = (_sentence(item["loc"], item["msg"]) for item in error.errors())
    return refusal(Problem("invalid", {"reason": " ".join(reasons)}))


def _sentence(location: tuple[str | int, ...], message: str) -> str:
    name = ".".join(map(str, location[1:]))
    return f"{name}: {message}." if name else message.removeprefix("Value error, ")


async def _health(request: Request, response: Response) -> Health:
    """Answer with 200 if images can be upscaled, else with 503."""
    queue: JobQueue = request.app.state.queue
    workers = len(request.app.state.pool.alive)
    is_well = workers > 0 and not queue.is_draining
    response.status_code = 200 if is_well else 503
    return Health(status="ok" if is_well else "unavailable", workers=workers, **queue.counts)


class _PrometheusText(Response):
    media_type = "text/plain; version=0.0.4"


async def _metrics(request: Request) -> Response:
    """Return what the server has counted, in Prometheus' text format."""
    return _PrometheusText(request.app.state.metrics.text())


def _page(name: str):  # type: ignore[no-untyped-def]
    async def page() -> FileResponse:
        return FileResponse(_STATIC / name, headers=_REVALIDATE)

    return page


class _StaticFiles(StaticFiles):
    """Files that browsers ask about again, so that an update takes effect at once."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(_REVALIDATE)
        return response
