"""Compare the YUV to RGB conversion of videos with swscale's, both against H.273 in float64.

python tools/measure_yuv.py
"""

import av
import numpy as np
import torch

from convattn.video.yuv import BT601, BT709, BT2020, Encoding

_KR_KB = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}


def exact(samples: np.ndarray, matrix: int) -> np.ndarray:
    """Convert samples (H, W, 3) of 8 bits in the limited range to RGB by the equations of H.273."""
    y, cb, cr = np.moveaxis((samples.astype(np.float64) - (16, 128, 128)) / (219, 224, 224), -1, 0)
    kr, kb = _KR_KB[matrix]
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], -1).clip(0, 1)


def main() -> None:
    """Print the mean and the largest error of both, in steps of 16 bits, for random samples."""
    samples = np.random.default_rng(0).integers(16, 236, (512, 512, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(samples.transpose(2, 0, 1)), "yuv444p")
    for matrix in _KR_KB:
        expected = exact(samples, matrix)
        ours = Encoding(matrix, False, 8).decode(torch.from_numpy(samples).permute(2, 0, 1)[None])
        scaled = frame.reformat(format="rgb48le", src_colorspace=matrix, src_color_range=1).to_ndarray()
        results = {"float32": ours[0].permute(1, 2, 0).numpy(), "swscale": scaled / 65535}
        for name, rgb in results.items():
            error = np.abs(rgb - expected) * 65535
            print(f"matrix {matrix}, {name}: mean {error.mean():.3f}, largest {error.max():.2f}")


if __name__ == "__main__":
    main()
