"""Benchmarks of layers, networks and detectors: time, memory and arithmetic on this machine."""
