"""Upscaling images of any kind and size."""
