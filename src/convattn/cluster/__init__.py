"""Upscaling on many machines with Ray, from and to any storage that fsspec knows."""

from convattn.cluster.settings import Settings
from convattn.cluster.upscaling import ClusterJob, Failure, Summary, upscale_on_cluster

__all__ = ["ClusterJob", "Failure", "Settings", "Summary", "upscale_on_cluster"]
