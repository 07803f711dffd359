"""The C3k2_ESC block in Ultralytics YOLO26.

Importing this package registers all model names with ``C3k2_ESC`` in Ultralytics, before or after Ultralytics
is imported. An installed convattn-yolo does so by itself when Python starts. Where the environment variable
``CONVATTN_YOLO_STARTUP=0`` disables both, :func:`install` does the same.
"""

from convattn_yolo.startup import install, start

__all__ = ["install"]

start()  # the start-up hook imports this module, so it must obey the environment variable too
