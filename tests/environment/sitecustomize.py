"""Lets tests, and every process that they start, import a torchvision that was built for another torch.

Lightning and spandrel import it, and its own operators cannot be loaded then. convattn-yolo provides the one
that matters, but for Ultralytics only; here it does so for all.
"""

from contextlib import suppress

with suppress(ImportError):
    from convattn_yolo import startup

    startup._EXTENSIONS["torchvision.extension"] = startup._define_nms
