"""Upscaling on many machines with Ray, from and to any storage that fsspec knows."""

from convattn.cluster.images import Failure, Summary, upscale_on_cluster
from convattn.cluster.settings import Settings

__all__ = ["Failure", "Settings", "Summary", "upscale_on_cluster"]
