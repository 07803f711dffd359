"""Measuring super-resolution: metrics, the published protocol, and comparisons of several models."""
