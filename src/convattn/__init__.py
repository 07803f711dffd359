"""convattn: Emulating Self-attention with Convolution (ESC, ICCV 2025), made usable."""

__version__ = "0.1.0"
