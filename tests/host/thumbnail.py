"""Make the thumbnails of the workflows on the embedded model: a held-out photograph before and after, really edited.

With a ComfyUI at COMFYUI_PATH or ~/comfy/ComfyUI:

    python -m ip2p.tests.host.thumbnail
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import skimage.data
from PIL import Image, ImageDraw

from ip2p.tests.host.comfy_host import find_comfy, make_base_directory, running_comfy
from ip2p.tests.host.workflow_files import FOLDER
from ip2p.tests.host.workflow_runs import ON_EMBEDDED, api_file
from ip2p.tests.host.workflow_sources import INPUT_PICTURE

SIDE = 512
PHOTO = "astronaut"
"""Never trained on."""


def before_and_after(before: Image.Image, after: Image.Image) -> Image.Image:
    """Join the left half of one picture and the right half of another, with a line between."""
    joined, middle = before.resize((SIDE, SIDE)), SIDE // 2
    joined.paste(after.resize((SIDE, SIDE)).crop((middle, 0, SIDE, SIDE)), (middle, 0))
    ImageDraw.Draw(joined).line([(middle, 0), (middle, SIDE)], fill="white", width=3)
    return joined


def main() -> None:
    """Write workflows/<name>.jpg for every workflow on the embedded model."""
    photo = Image.fromarray(getattr(skimage.data, PHOTO)())
    with (
        tempfile.TemporaryDirectory() as folder,
        running_comfy(find_comfy(), make_base_directory(Path(folder))) as server,
    ):
        server.put_input(photo, INPUT_PICTURE)
        for name in ON_EMBEDDED:
            (edited,) = server.images(server.run(api_file(name), seconds=600))
            before_and_after(photo, edited).save(FOLDER / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
