"""The web page and the HTTP API: ``convattn serve``.

The server process reads requests and keeps the queue; it never decodes an image and never imports torch.
Worker processes compute, and are replaced when they crash (see :mod:`convattn.serve.pool`).
"""
