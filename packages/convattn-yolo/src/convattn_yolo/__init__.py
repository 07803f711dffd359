"""The C3k2_ESC block in Ultralytics YOLO26.

Importing this package makes every model name with ``C3k2_ESC`` known to Ultralytics, whether Ultralytics was
imported before or will be. An installed convattn does the same by itself at start-up.
"""

from convattn_yolo.startup import install

__all__ = ["install"]

install()
