"""Networks as files for other runtimes: ONNX, OpenVINO, TensorRT and torch.export.

A file is kept only after its results were compared with torch at sizes that were not traced.
"""

from convattn.export.checking import PRECISIONS, Agreement
from convattn.export.exporter import export
from convattn.export.writers import FORMATS

__all__ = ["FORMATS", "PRECISIONS", "Agreement", "export"]
