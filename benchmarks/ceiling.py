"""What the machine itself can do with one thread: the ceilings that the other parts are read against."""

from io import BytesIO

import imagecodecs
import numpy as np
import torch
from PIL import Image

from benchmarks.measure import Found, Row, rates, seconds

SIDE, COPIED_MB, IMAGE_PX = 1024, 256, 2048


def rows() -> Found:
    """Measure products of matrices, copies of memory, and decoders of images."""
    single, half = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE, dtype=torch.bfloat16)
    taken = seconds(lambda: single @ single, lambda: half @ half, repeats=7)
    gflop = [rates(2 * SIDE**3 / 1e9, one) for one in taken]
    source = np.ones(COPIED_MB * 10**6, np.uint8)
    target = np.ones_like(source)
    moved = [
        rates(2 * COPIED_MB / 1e3, one)
        for one in seconds(lambda: np.copyto(target, source), lambda: source.copy(), repeats=7)
    ]
    y, x = np.mgrid[:IMAGE_PX, :IMAGE_PX]
    pixels = np.stack([x % 251, y % 241, (x + y) % 239], -1).astype(np.uint8)
    jpeg = BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=90)
    packed = imagecodecs.zlib_encode(imagecodecs.delta_encode(pixels, axis=1))
    decoded = seconds(
        lambda: imagecodecs.zlib_decode(packed),
        lambda: np.asarray(Image.open(jpeg)),
    )
    mpx = [rates(IMAGE_PX**2 / 1e6, one) for one in decoded]
    return [
        Row(f"matrix product {SIDE:,}, bfloat16", "float32", gflop[1], gflop[0], "GFLOP/s"),
        Row("memory copy, read and write", "into new memory", *moved, "GB/s"),
        Row("deflate decoded", "JPEG decoded", *mpx, "Mpx/s"),
    ]
