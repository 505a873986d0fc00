"""Reads the text in pictures: the child's side of ``read_pictures.py``.

rapidocr reads Latin letters, Chinese and Japanese; its models come with the package.
"""

import io
import logging
from collections.abc import Callable
from typing import Any

MAX_PIXELS = 50_000_000
MAX_SIDE = 2000  # of the picture from which letters are read
SURE = 0.6  # of a line
MAX_TEXT = 4000  # characters
Answer = tuple[dict[str, Any], bytes]


def start(options: dict[str, Any]) -> Callable[[dict[str, Any], bytes], Answer]:
    """See ``LimitedChild``; ``options`` has ``side``, the longer side in pixels of the
    picture in which lines are looked for."""
    # Behind the walls, and only if they are installed.
    import numpy as np
    from PIL import Image, ImageOps
    from rapidocr import RapidOCR

    logging.disable()
    engine = RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.max_side_len": MAX_SIDE,
            "Det.limit_side_len": options["side"],
            "Det.limit_type": "max",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "EngineConfig.onnxruntime.enable_cpu_mem_arena": False,
        }
    )

    def answer(request: dict[str, Any], body: bytes) -> Answer:
        with Image.open(io.BytesIO(body)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels")
            picture.draft("RGB", (MAX_SIDE, MAX_SIDE))
            picture.thumbnail((MAX_SIDE, MAX_SIDE))
            whole = ImageOps.exif_transpose(picture).convert("RGBA")
        paper = Image.new("RGBA", whole.size, "white")  # under transparent parts
        paper.alpha_composite(whole)
        found = engine(np.asarray(paper.convert("RGB"))[:, :, ::-1])
        lines = zip(found.txts or (), found.scores or (), strict=True)
        text = "\n".join(line for line, score in lines if score >= SURE)
        return {"text": text[:MAX_TEXT]}, b""

    return answer
