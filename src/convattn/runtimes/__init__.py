"""Networks that other runtimes compute."""
