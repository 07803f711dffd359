"""The main function of a worker process: what it may do, and when it ends."""

import logging
import multiprocessing
import os
import shutil
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from convattn.serve.messages import Setup

__all__ = ["main"]

_LIKELY_VICTIM = "800"  # of 1000: if memory runs out, the kernel ends a worker and not the server


def main(connection: Connection, setup: Setup) -> None:
    """Upscale what the server sends until it sends None or is gone."""
    for signal_ in (signal.SIGINT, signal.SIGTERM):  # the server decides; Ctrl-C goes to all processes
        signal.signal(signal_, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_server, args=(setup.folder,), daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_LIKELY_VICTIM)
    os.environ["VIPS_BLOCK_UNTRUSTED"] = "1"  # before libvips is loaded
    logging.basicConfig(format="convattn worker: %(message)s")

    import PIL.Image

    from convattn.serve.compute import Computer

    PIL.Image.MAX_IMAGE_PIXELS = setup.limits.pixels // 2  # Pillow refuses more than twice as many
    with suppress(EOFError, BrokenPipeError):
        Computer(connection, setup).run()


def _end_with_the_server(folder: Path) -> None:
    """End at once when the server is gone, even if it was killed; leave none of its files behind."""
    server = multiprocessing.parent_process()
    if server:
        server.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
