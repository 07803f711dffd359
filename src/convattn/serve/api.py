"""The HTTP API."""

import asyncio
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from convattn import __version__
from convattn.files import natural_key
from convattn.serve.archive import stream_zip
from convattn.serve.events import EventStream, follow, follow_group
from convattn.serve.job_queue import JobQueue
from convattn.serve.jobs import Job, JobStatus, State
from convattn.serve.kinds import MEDIA_TYPES
from convattn.serve.messages import Ready
from convattn.serve.options import Options
from convattn.serve.problems import STATUSES, RejectedError
from convattn.serve.security import COOKIE, session_value
from convattn.serve.settings import Settings
from convattn.serve.uploads import receive

__all__ = ["Refusal", "router"]


class Refusal(BaseModel):
    """Why a request is refused."""

    detail: str = Field(description="What is wrong, and what to do about it.")
    code: str = Field(description="One of: " + ", ".join(STATUSES) + ".")
    values: dict[str, str | int | float] = Field({}, description="What the detail mentions.")


class Model(BaseModel):
    """A model that images can be upscaled with."""

    name: str
    scales: list[int] = Field(description="Empty for any scale from 1 to 30.")
    task: str
    good_for: str
    fidelity: bool = Field(description="Whether the option `fidelity` applies.")


class About(BaseModel):
    """What this server is and allows."""

    version: str
    device: str
    workers: int
    models: list[Model]
    upload_bytes: int
    pixels: int
    frames: int
    jobs_per_client: int
    keep_seconds: float


_PROBLEMS = {
    400: "The request is cut off or cannot be read.",
    401: "The token is missing or wrong.",
    403: "The request comes from another web site, or names another host.",
    404: "There is no such job.",
    408: "The file took too long to arrive.",
    409: "The job has no result, or none yet.",
    413: "The file, the image or the result is too large.",
    415: "The file is no image or video that can be read.",
    422: "The options or the image cannot be used.",
    429: "The queue is full; try again after the seconds of Retry-After.",
    500: "The computation crashed.",
    503: "The server is about to stop, or the job was cancelled.",
}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_IMAGES = dict.fromkeys(MEDIA_TYPES.values(), _IMAGE)
_OF_FORM = {key: value for key, value in Options.model_json_schema()["properties"].items() if key != "image"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "additionalProperties": False,
                    "properties": {"image": {"type": "string", "format": "binary"}, **_OF_FORM},
                }
            },
            "application/octet-stream": _IMAGE,
            **_IMAGES,
        },
    }
}


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Refusal, "description": _PROBLEMS[code]} for code in (400, 401, 403, *codes)}


def _file(description: str, content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": content}}


router = APIRouter(prefix="/v1")


async def _queue(request: Request) -> JobQueue:
    return request.app.state.queue


Queue = Annotated[JobQueue, Depends(_queue)]


async def _job(queue: Queue, id: Annotated[str, Path(max_length=64)]) -> Job:
    return queue.get(id)


KnownJob = Annotated[Job, Depends(_job)]
Group = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{16,64}$")]


@router.post(
    "/upscale",
    summary="Upscale an image or a video",
    response_class=Response,
    openapi_extra=_BODY,
    responses={
        **_file("The upscaled image.", _IMAGES),
        202: {"model": JobStatus, "description": "A job, with `Prefer: respond-async`."},
        **_problems(408, 413, 415, 422, 429, 500, 503),
    },
)
async def upscale(
    request: Request,
    queue: Queue,
    options: Annotated[Options, Query()],
    prefer: Annotated[str, Header(description="`respond-async` answers with a job at once.")] = "",
) -> Response:
    """Answer with the upscaled image or, with the header `Prefer: respond-async`, with a job.

    The image is the body itself, with the options in the query; or the body is `multipart/form-data` with the
    field `image` and the options as further fields. Transparency, 16 bits, grayscale, color profiles and
    metadata are kept; EXIF orientation is applied. Of an animation that becomes another format, the first
    frame is upscaled. A client that disconnects cancels its job.
    """
    job = await receive(request, options, queue)
    if "respond-async" in prefer.lower():
        headers = {"Location": f"/v1/jobs/{job.id}", "Preference-Applied": "respond-async"}
        return JSONResponse(queue.status(job).model_dump(mode="json"), 202, headers)
    try:
        await _wait_connected(request, job)
        response = _result_of(job)
    except BaseException:
        queue.forget(job)
        raise
    response.background = BackgroundTask(_forget, queue, job)
    return response


async def _forget(queue: JobQueue, job: Job) -> None:
    queue.forget(job)


async def _wait_connected(request: Request, job: Job) -> None:
    """Wait until a job is finished or its client is gone, whichever comes first."""
    gone = asyncio.create_task(_until_disconnected(request))
    try:
        with job.watched():
            while not job.is_finished:
                changed = asyncio.create_task(job.changed.wait())
                await asyncio.wait({gone, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if gone.done():
                    raise RejectedError("client-gone")
    finally:
        gone.cancel()


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _result_of(job: Job) -> FileResponse:
    if job.problem:
        raise RejectedError(job.problem.code, None, **job.problem.values)
    if job.state is State.cancelled:
        raise RejectedError("cancelled")
    if job.result is None:
        raise RejectedError("not-finished", 1)
    headers = {"Server-Timing": f"compute;dur={1000 * (job.seconds or 0):.0f}"}
    filename = job.name.rpartition("/")[2]
    return FileResponse(job.result, media_type=job.media_type, filename=filename, headers=headers)


@router.get("/jobs/{id}", summary="How far a job is", responses=_problems(404, 422))
async def get_job(queue: Queue, job: KnownJob) -> JobStatus:
    """Return the status of a job. A job that nobody asks about for half a minute is cancelled."""
    return queue.status(job)


@router.delete("/jobs/{id}", status_code=204, summary="Cancel a job", responses=_problems(404, 422))
async def delete_job(queue: Queue, job: KnownJob) -> None:
    """End a job and drop its files, whatever its state."""
    queue.forget(job)


@router.get(
    "/jobs/{id}/events",
    summary="Follow a job",
    response_class=EventStream,
    responses={**_file("Events named `status`.", {"text/event-stream": {}}), **_problems(404, 422)},
)
async def job_events(queue: Queue, job: KnownJob) -> EventStream:
    """Send the status of a job whenever it changes, as server-sent events, until it is finished."""
    return EventStream(follow(queue, job))


@router.get(
    "/jobs/{id}/result",
    summary="The upscaled image",
    response_class=FileResponse,
    responses={
        **_file("The upscaled image.", _IMAGES),
        **_problems(404, 409, 413, 422, 500, 503),
    },
)
async def job_result(job: KnownJob) -> FileResponse:
    """Return the result of a job that is done; of one that failed, why."""
    return _result_of(job)


@router.get(
    "/jobs/{id}/preview/{side}",
    summary="An image as browsers show it",
    response_class=FileResponse,
    responses={**_file("An image.", _IMAGES), **_problems(404, 409, 422)},
)
async def job_preview(job: KnownJob, side: Literal["before", "after"]) -> FileResponse:
    """Return the input or the result of a job, as PNG where browsers do not show its own format."""
    preview = job.preview(side)
    if job.state is not State.done or preview is None:
        raise RejectedError("no-result")
    return FileResponse(preview, media_type=MEDIA_TYPES[preview.suffix], content_disposition_type="inline")


@router.get("/groups/{group}", summary="How far the jobs of a group are", responses=_problems(422))
async def get_group(queue: Queue, group: Group) -> list[JobStatus]:
    """Return the status of each job of a group, in the order in which they came."""
    return [queue.status(job) for job in queue.group(group)]


@router.get(
    "/groups/{group}/events",
    summary="Follow a group of jobs",
    response_class=EventStream,
    responses={**_file("Events named `status`.", {"text/event-stream": {}}), **_problems(422)},
)
async def group_events(queue: Queue, group: Group) -> EventStream:
    """Send the status of each job of a group whenever it changes, for as long as the client listens."""
    return EventStream(follow_group(queue, group))


@router.get(
    "/groups/{group}/results.zip",
    summary="All results of a group",
    response_class=StreamingResponse,
    responses={**_file("A ZIP archive.", {"application/zip": _IMAGE}), **_problems(404, 422)},
)
async def group_results(queue: Queue, group: Group) -> StreamingResponse:
    """Return the results of a group as a ZIP archive, which is sent while it is made."""
    done = [job for job in queue.group(group) if job.state is State.done]
    if not done:
        raise RejectedError("no-group")
    return StreamingResponse(_archive(done), 200, _ATTACHMENT, "application/zip")


_ATTACHMENT = {"Content-Disposition": 'attachment; filename="upscaled.zip"'}


def _archive(jobs: Sequence[Job]) -> Any:
    results = [(job.name, job.result) for job in jobs if job.result]  # in the order in which uploads ended
    return stream_zip(sorted(results, key=lambda named: natural_key(PurePath(named[0].casefold()))))


@router.get("/models", summary="Models", responses=_problems())
async def models(request: Request) -> list[Model]:
    """Return the models that images can be upscaled with."""
    return _models(request.app.state.ready)


def _models(ready: Ready) -> list[Model]:
    return [Model(**info._asdict()) for info in ready.models]


@router.get("/about", summary="The server", responses=_problems())
async def about(request: Request) -> About:
    """Return what this server is and what it allows."""
    settings: Settings = request.app.state.settings
    ready: Ready = request.app.state.ready
    limits = settings.limits
    return About(
        version=__version__,
        device=ready.device,
        workers=request.app.state.queue.workers,
        models=_models(ready),
        upload_bytes=limits.upload_bytes,
        pixels=limits.pixels,
        frames=limits.frames,
        jobs_per_client=limits.jobs_per_client,
        keep_seconds=limits.keep_seconds,
    )


@router.post("/session", status_code=204, summary="Let a browser in", responses=_problems())
async def session(request: Request, response: Response) -> None:
    """Exchange the token, given as `Authorization: Bearer TOKEN`, for a cookie that the page uses."""
    token = request.app.state.settings.token
    if token:
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, session_value(token), httponly=True, samesite="strict", secure=secure, path="/"
        )
