"""`ip2p demo`: edit a photograph and two rendered scenes with the embedded editor, and say where the pictures are."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from ..ip2p_core.checkpoint import embedded_model_path
from .diffusers_adapter import load_editor
from .edit import EditSettings, default_settings, edit_images
from .edit_backend import Editor
from .embedded.pictures import HELD_OUT_PHOTOS, open_photo
from .shape_world.edits import random_edit
from .shape_world.render import render
from .shape_world.scene import random_scene

PHOTO = "astronaut"
INSTRUCTIONS = (
    "make it black and white",
    "make it sepia",
    "invert the colors",
    "make it darker",
    "make it warmer",
    "make it a pencil sketch",
    "add a blue tint",
    "pixelate it",
)
SCENE_EDITS = ((5, "recolour"), (12, "background"))
"""(seed, kind of edit) of the two scenes."""
TILE, MARGIN, CAPTION = 256, 10, 26


def edit_one(editor: Editor, image: Tensor, instruction: str, settings: EditSettings) -> Tensor:
    """One edited picture [H, W, 3] of a picture [H, W, 3]."""
    return edit_images(editor, image[None], [instruction], settings).image[0]


def to_pil(image: Tensor) -> Image.Image:
    """A picture [H, W, 3] in [0, 1] as 8 bit."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().numpy())


def contact_sheet(tiles: Sequence[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Tiles with their captions on white."""
    rows = -(-len(tiles) // columns)
    width, height = TILE + MARGIN, TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (caption, picture) in enumerate(tiles):
        x, y = MARGIN + (index % columns) * width, MARGIN + (index // columns) * height
        font = ImageFont.load_default(min(15, int(1.9 * TILE / max(1, len(caption)))))  # long captions in small letters
        draw.text((x + TILE / 2, y + CAPTION / 2), caption, fill="black", font=font, anchor="mm")
        sheet.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y + CAPTION))
    return sheet


def photo_tensor(name: str) -> Tensor:
    """A held-out photograph, its middle square, [H, W, 3] in [0, 1]."""
    photo = open_photo(*HELD_OUT_PHOTOS[name])
    side = min(photo.size)
    x, y = (photo.width - side) // 2, (photo.height - side) // 2
    return torch.from_numpy(np.asarray(photo.crop((x, y, x + side, y + side)), np.float32) / 255)


def run_demo(out: Path) -> list[Path]:
    """Make all pictures; the contact sheet comes first in the list."""
    out.mkdir(parents=True, exist_ok=True)
    editor = load_editor(embedded_model_path("editor"))
    settings = default_settings(editor.config)
    photo = photo_tensor(PHOTO)
    jobs = [(PHOTO, photo, instruction) for instruction in INSTRUCTIONS]
    for seed, kind in SCENE_EDITS:
        rng = random.Random(f"demo/{seed}")
        edit = random_edit(rng, random_scene(rng, 2), kind)
        scene = torch.from_numpy(render(edit.before, settings.working_resolution))
        jobs.append((f"scene_{kind}", scene, edit.instruction))
    tiles, paths, shown = [], [], set()
    for name, image, instruction in tqdm(jobs, desc="editing", unit="picture"):
        result = to_pil(edit_one(editor, image, instruction, settings))
        if name not in shown:
            shown.add(name)
            tiles.append(("input", to_pil(image)))
            to_pil(image).save(out / f"{name}_input.png")
        tiles.append((instruction, result))
        path = out / f"{name}_{instruction.replace(' ', '_')}.png"
        result.save(path)
        paths.append(path)
    sheet = out / "before_after.png"
    contact_sheet(tiles, columns=5).save(sheet)
    return [sheet, *paths]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p demo`."""
    parser = argparse.ArgumentParser(prog="ip2p demo", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/demo"), help="folder of the pictures")
    options = parser.parse_args(argv)
    start = time.monotonic()
    paths = run_demo(options.output)
    print(f"{len(paths)} pictures in {time.monotonic() - start:.0f} s: {options.output.resolve()}")  # noqa: T201
    print(f"Look at {paths[0].resolve()} first.")  # noqa: T201
    return 0
