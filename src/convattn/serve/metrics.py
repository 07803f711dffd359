"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """The figures of one server; each server has its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.jobs = Counter("convattn_jobs", "Jobs by how they ended.", ["state"], registry=registry)
        self.rejected = Counter(
            "convattn_rejected_requests", "Requests that were refused.", ["status"], registry=registry
        )
        self.uploaded = Counter("convattn_uploaded_bytes", "Bytes of accepted files.", registry=registry)
        self.pixels = Counter("convattn_result_pixels", "Pixels of results.", registry=registry)
        self.compute = Histogram(
            "convattn_compute_seconds", "Computation of a job.", buckets=_SECONDS, registry=registry
        )
        self.wait = Histogram(
            "convattn_wait_seconds",
            "Time in the queue.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.crashes = Counter("convattn_worker_crashes", "Workers that were replaced.", registry=registry)
        self.waiting = Gauge("convattn_waiting_jobs", "Jobs in the queue.", registry=registry)
        self.running = Gauge("convattn_running_jobs", "Jobs that are computed.", registry=registry)
        self.stored = Gauge("convattn_stored_bytes", "Bytes of uploads and results.", registry=registry)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)
