"""From the body of a request to a job's file."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from convattn.images.signatures import HEAD
from convattn.serve.job_queue import JobQueue
from convattn.serve.jobs import Job
from convattn.serve.kinds import Kind, sniff
from convattn.serve.options import Options
from convattn.serve.problems import RejectedError

__all__ = ["receive"]

_MOST_FIELDS = 20

Create = Callable[[Kind, Options], Job]


async def receive(request: Request, options: Options, queue: JobQueue) -> Job:
    """Read the image of a request and let a job for it wait.

    Args:
        request: Its body is the image, or multipart/form-data with the image as the field ``image``.
        options: Of the query; fields of a form come before them.
        queue: Where the job waits.

    Raises:
        RejectedError: There is no place, or the body is too large, too slow, or no image.
        RequestValidationError: The fields of the form are wrong.
    """
    limits = queue.limits
    if int(request.headers.get("content-length", 0)) > limits.upload_bytes:
        raise _too_large(limits.upload_bytes)
    request = Request(request.scope, _limited(request.receive, limits.upload_bytes))
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    with queue.place(request.client.host if request.client else "") as create:
        read = _read_form if is_form else _read_raw
        try:
            job = await asyncio.wait_for(read(request, options, create), limits.upload_seconds)
        except asyncio.TimeoutError:
            raise RejectedError("body-slow") from None
        except ClientDisconnect:
            raise RejectedError("body-incomplete") from None
        queue.submit(job)
    return job


def _limited(receive: Receive, most: int) -> Receive:
    """Count the bytes of a body, whatever its header says."""
    count = 0

    async def counted() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > most:
            raise _too_large(most)
        return message

    return counted


def _too_large(most: int) -> RejectedError:
    return RejectedError("file-too-large", mebibytes=most / 2**20)


async def _read_raw(request: Request, options: Options, create: Create) -> Job:
    stream = request.stream()
    head = await _read_head(stream)
    job = create(_kind_of(head), options)
    with job.source.open("wb") as file:
        file.write(head)
        async for chunk in stream:
            file.write(chunk)
    return job


async def _read_head(stream: AsyncIterator[bytes]) -> bytes:
    head = b""
    async for chunk in stream:
        head += chunk
        if len(head) >= HEAD:
            break
    return head


async def _read_form(request: Request, options: Options, create: Create) -> Job:
    try:
        form = request.form(max_files=1, max_fields=_MOST_FIELDS)
        async with form as fields:
            image = fields.get("image")
            if not isinstance(image, UploadFile):
                raise RejectedError("image-missing")
            options = _options_of(fields, options, image.filename or "")
            job = create(_kind_of(await image.read(HEAD)), options)
            await image.seek(0)
            with job.source.open("wb") as file:
                await asyncio.to_thread(shutil.copyfileobj, image.file, file)
    except HTTPException as error:  # of a form that cannot be parsed
        raise RejectedError("form-unreadable", reason=error.detail) from error
    return job


def _options_of(fields: FormData, options: Options, filename: str) -> Options:
    given: dict[str, Any] = options.model_dump(exclude_unset=True)
    given |= {key: value for key, value in fields.items() if key != "image" and value != ""}
    given.setdefault("name", filename[:255])
    try:
        return Options.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]) from error


def _kind_of(head: bytes) -> Kind:
    kind = sniff(head[:HEAD])
    if kind is None:
        raise RejectedError("file-unreadable")
    return kind
