"""What can go wrong, by a code that programs and the page's translations rely on."""

from typing import NamedTuple

__all__ = ["STATUSES", "Problem", "RejectedError"]

Value = str | int | float

_PROBLEMS = {
    "body-incomplete": (400, "The file is cut off."),
    "client-gone": (400, "The client is gone."),
    "form-unreadable": (400, "{reason} The form cannot be read."),
    "token-wrong": (401, "Give the server's token, as Authorization: Bearer TOKEN."),
    "host-unknown": (403, "This server has another name; allow this one by --allow-host."),
    "other-site": (403, "Requests from other web sites are refused."),
    "no-job": (404, "There is no such job; results are kept for a while only."),
    "no-group": (404, "There is no such group, or it has no results."),
    "body-slow": (408, "The file took too long to arrive."),
    "not-finished": (409, "The job is not finished; ask again later, or follow its events."),
    "no-result": (409, "The job has no result, or none yet."),
    "file-too-large": (413, "The file is too large; this server takes at most {mebibytes:g} MiB."),
    "image-too-large": (
        413,
        "The image has {width}×{height} pixels; this server takes at most {megapixels:g} megapixels. "
        "Make it smaller first.",
    ),
    "result-too-large": (
        413,
        "The result would have {width}×{height} pixels; this server makes at most {megapixels:g} megapixels. "
        "Choose a smaller scale.",
    ),
    "too-many-frames": (
        413,
        "The video has {frames} frames; this server takes at most {most}. Cut it first.",
    ),
    "out-of-memory": (413, "The memory of the server does not suffice; choose a smaller image or scale."),
    "job-too-long": (413, "The computation took more than {seconds:g} s and was ended."),
    "file-unreadable": (
        415,
        "This is no image or video that can be read; convert it to PNG, JPEG, WebP, TIFF or MP4.",
    ),
    "decoder-missing": (415, "This is {format}, which the server needs a decoder for: {install}."),
    "image-missing": (422, "The field image is missing; it is the file to upscale."),
    "file-damaged": (422, "The file is damaged; get a whole copy of it."),
    "no-model": (422, "There is no model {model} here; choose {models}."),
    "invalid": (422, "{reason}"),
    "queue-full": (429, "The queue is full; try again later."),
    "too-many-jobs": (429, "You have {count} unfinished jobs; wait for some of them."),
    "store-full": (429, "The server's store is full; try again later."),
    "crashed": (500, "The computation crashed, perhaps for lack of memory."),
    "failed": (500, "The server failed at this image; its log says why."),
    "stopping": (503, "The server is about to stop."),
    "cancelled": (503, "The job was cancelled."),
}

STATUSES = {code: status for code, (status, _) in _PROBLEMS.items()}
"""The HTTP status of each code."""


class Problem(NamedTuple):
    """What went wrong.

    Attributes:
        code: A key of :data:`STATUSES`.
        values: What the sentence of the code mentions.
    """

    code: str
    values: dict[str, Value]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUSES[self.code]

    @property
    def detail(self) -> str:
        """A sentence in English."""
        return _PROBLEMS[self.code][1].format(**self.values)


class RejectedError(Exception):
    """A request or a job is refused.

    Attributes:
        problem: Why.
        retry_after: Seconds after which to try again; None for never.
    """

    def __init__(self, code: str, retry_after: int | None = None, **values: Value) -> None:
        self.problem, self.retry_after = Problem(code, values), retry_after
        super().__init__(self.problem.detail)
