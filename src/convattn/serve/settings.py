"""What a server allows, and where it listens."""

import ipaddress
import secrets
from dataclasses import dataclass, field

from convattn.errors import InputError

__all__ = ["Limits", "Settings", "choose_token", "is_loopback"]


@dataclass(frozen=True)
class Limits:
    """What clients may ask for.

    Attributes:
        upload_bytes: Largest request body.
        upload_seconds: Longest time that a request body may take to arrive.
        pixels: Most pixels of an image, or of a frame; read from the header, before anything is decoded.
        result_pixels: Most pixels of a result, or of a frame of it.
        frames: Most frames of a video or an animation.
        waiting: Jobs in the queue; beyond it, requests are answered with 429.
        jobs_per_client: Unfinished jobs of one client address.
        stored_bytes: Bytes of uploads and results on the disk; beyond it, requests are answered with 429.
        job_seconds: Longest time that a job may compute.
        keep_seconds: How long results are kept.
        abandoned_seconds: A job that nobody waits for or asks about for so long is cancelled.
    """

    upload_bytes: int = 64 * 2**20
    upload_seconds: float = 120
    pixels: int = 50_000_000
    result_pixels: int = 400_000_000
    frames: int = 600
    waiting: int = 32
    jobs_per_client: int = 16
    stored_bytes: int = 4 * 2**30
    job_seconds: float = 1800
    keep_seconds: float = 900
    abandoned_seconds: float = 30


@dataclass(frozen=True)
class Settings:
    """How a server runs.

    Attributes:
        host: The address to listen on.
        port: The TCP port.
        token: What clients must present; None for nothing.
        allowed_hosts: Names besides the address itself that requests may be addressed to.
        device: As in :class:`~convattn.inference.upscaler.Upscaler`.
        precision: As in :class:`~convattn.inference.upscaler.Upscaler`.
        workers: Worker processes; None for one a core, at most four, and one on a GPU.
        batch: Most images of equal size that a worker upscales at once; None for eight on a GPU, else one.
        shutdown_seconds: How long running jobs may continue when the server shuts down.
        limits: What clients may ask for.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    batch: int | None = None
    shutdown_seconds: float = 10
    limits: Limits = field(default_factory=Limits)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def choose_token(host: str, token: str | None, no_auth: bool) -> str | None:
    """Return the token that clients must present: the given one, or a new one where others reach the server.

    Raises:
        InputError: The token is too short, or both a token and no authentication are requested.
    """
    if no_auth and token:
        raise InputError("Give a token or --no-auth, not both.")
    if token is not None and len(token) < 16:
        raise InputError("The token has fewer than 16 characters; take a longer one, or leave it out.")
    if token or no_auth or is_loopback(host):
        return token
    return secrets.token_urlsafe(24)
