"""Make the thumbnails of the workflows on the embedded models: a held-out photograph before and after, and pairs, really made.

With a ComfyUI at COMFYUI_PATH or ~/comfy/ComfyUI:

    python -m ip2p.tests.host.thumbnail          all of them; make_dataset comes before train_editor, which needs what it leaves
    python -m ip2p.tests.host.thumbnail NAME...  these alone
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import skimage.data
from PIL import Image, ImageDraw

from ip2p.tests.host.comfy_host import PACK, find_comfy, make_base_directory, running_comfy
from ip2p.tests.host.pair_workflow_sources import TRIPLETS_FILE
from ip2p.tests.host.workflow_files import FOLDER
from ip2p.tests.host.workflow_parts import INPUT_PICTURE
from ip2p.tests.host.workflow_runs import OF_BASELINES, OF_PAIRS, OF_TRAINING, ON_EMBEDDED, api_file

SIDE = 512
PHOTO = "astronaut"
"""Never trained on."""


def before_and_after(before: Image.Image, after: Image.Image) -> Image.Image:
    """Join the left half of one picture and the right half of another, with a line between."""
    joined, middle = before.resize((SIDE, SIDE)), SIDE // 2
    joined.paste(after.resize((SIDE, SIDE)).crop((middle, 0, SIDE, SIDE)), (middle, 0))
    ImageDraw.Draw(joined).line([(middle, 0), (middle, SIDE)], fill="white", width=3)
    return joined


def grid(pictures: list[Image.Image], num_columns: int = 4) -> Image.Image:
    """Lay pictures out in rows, at most as many as there are columns."""
    side, shown = SIDE // num_columns, pictures[: num_columns**2]
    sheet = Image.new("RGB", (SIDE, -(-len(shown) // num_columns) * side), "white")
    for number, picture in enumerate(shown):
        sheet.paste(picture.resize((side, side)), (number % num_columns * side, number // num_columns * side))
    return sheet


def main() -> None:
    """Write workflows/<name>.jpg for the workflows on the embedded models that are named, or for all."""
    names = sys.argv[1:] or [*ON_EMBEDDED, *OF_PAIRS, *OF_TRAINING, *OF_BASELINES]
    photo = Image.fromarray(getattr(skimage.data, PHOTO)())
    with (
        tempfile.TemporaryDirectory() as folder,
        running_comfy(find_comfy(), make_base_directory(Path(folder))) as server,
    ):
        server.put_input(photo, INPUT_PICTURE)
        for name in [one for one in names if one in ON_EMBEDDED]:
            (edited,) = server.images(server.run(api_file(name), seconds=600))
            before_and_after(photo, edited).save(FOLDER / f"{name}.jpg", quality=88)
        shutil.copy(PACK / "docs" / "examples" / TRIPLETS_FILE, server.base / "input" / TRIPLETS_FILE)
        for name in [one for one in names if one not in ON_EMBEDDED]:
            pictures = server.images(server.run(api_file(name), seconds=900))
            small = [picture for picture in pictures if picture.width == picture.height <= SIDE // 2]
            columns = 2 if len(small) <= 4 else 3 if len(small) in (6, 9) else 4
            grid(small, columns).save(FOLDER / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
