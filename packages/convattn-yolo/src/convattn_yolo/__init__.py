"""The C3k2_ESC block in Ultralytics YOLO26.

Importing this package registers all model names with ``C3k2_ESC`` in Ultralytics, before or after Ultralytics
is imported. An installed convattn-yolo does so by itself when Python starts.
"""

from convattn_yolo.startup import install

__all__ = ["install"]

install()
