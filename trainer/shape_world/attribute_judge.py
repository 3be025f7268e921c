"""A small network that says what a picture of up to four objects shows: the looks, and of every shape all attributes.

It marks on a grid of cells where the centre of an object of each shape is, as CenterNet does (Zhou et al. 2019,
arXiv:1904.07850), and reads colour, material and radius there. B pictures, S shapes, G cells along a side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ...ip2p_core.checkpoint_files import read_metadata, read_tensors
from ...ip2p_core.errors import CheckpointError, ModelMismatch
from ...ip2p_core.pair_store.durable_files import write_durably
from .scene import BACKGROUNDS, LARGE_FROM, MATERIALS, MEDIA, PALETTE, SHAPES, SIZES, WEATHERS, FloatImage
from .world_settings import MOST_OBJECTS

SIDE, STRIDE = 64, 4
CELLS = SIDE // STRIDE
SPREAD = 0.8
"""Of the mark of an object's centre, in cells."""
PRESENT = 0.4
"""Height of a mark from which on there is an object."""
RADIUS_UNIT = 0.15
"""Radii are learnt as logarithms of multiples of it."""
CONFIG_KEY, KIND, FORMAT_VERSION = "ip2p.config", "attribute-judge", 1
RARE = -5.0
"""Logit of a centre before anything is learnt."""
_BATCH = 128


class SeenShape(NamedTuple):
    """The objects of one shape that a picture shows, taken together."""

    number: int
    colour: str
    material: str
    radius: float
    """Mean, a fraction of the picture's side."""
    centre: tuple[float, float]
    """Mean of their places, across and down, fractions of the picture's side."""

    @property
    def size(self) -> str:
        """One of scene.SIZES."""
        return SIZES[self.radius >= LARGE_FROM]


class Seen(NamedTuple):
    """What a picture shows."""

    background: str
    weather: str
    medium: str
    shapes: Mapping[str, SeenShape]
    """By name; shapes that are not there are left out."""


class Reading(NamedTuple):
    """What the network says, before anything is decided."""

    marks: Tensor
    """Logits of an object's centre [B, S, G, G]."""
    colours: Tensor
    """Logits [B, 8, G, G]."""
    materials: Tensor
    """Logits [B, 4, G, G]."""
    radii: Tensor
    """Logarithms [B, G, G] of radii over RADIUS_UNIT."""
    looks: tuple[Tensor, Tensor, Tensor]
    """Logits of background [B, 5], weather [B, 5] and medium [B, 4]."""


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm, self.second_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(hidden)))


class JudgeNetwork(nn.Module):
    """Reads pictures.

    Args:
        width: channels of the grid of cells.
        depth: residual blocks.
    """

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        fine = width // 2
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, fine, 3, padding=1, bias=False),
            nn.BatchNorm2d(fine),
            nn.ReLU(),
            nn.Conv2d(fine, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.body = nn.Sequential(*(_Residual(width) for _ in range(depth)))
        self.cells = nn.Conv2d(width, len(SHAPES) + len(PALETTE) + len(MATERIALS) + 1, 1)
        _start_rare(self.cells)
        self.looks = nn.Linear(3 * width, len(BACKGROUNDS) + len(WEATHERS) + len(MEDIA))

    def forward(self, pictures: Tensor) -> Reading:
        """Read pictures [B, 3, SIDE, SIDE] in [0, 1]."""
        fine = self.stem(pictures * 2 - 1)
        features = self.body(fine)
        cells = self.cells(features)
        marks, colours, materials, radii = cells.split((len(SHAPES), len(PALETTE), len(MATERIALS), 1), dim=1)
        pooled = torch.cat((fine.mean((2, 3)), features.mean((2, 3)), features.std((2, 3))), dim=1)
        background, weather, medium = self.looks(pooled).split((len(BACKGROUNDS), len(WEATHERS), len(MEDIA)), dim=1)
        return Reading(marks, colours, materials, radii[:, 0], (background, weather, medium))


def _start_rare(cells: nn.Conv2d) -> None:
    if cells.bias is not None:
        nn.init.constant_(cells.bias[: len(SHAPES)], RARE)


class AttributeJudge:
    """Says what pictures show.

    Args:
        network: trained.
    """

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def from_file(cls, path: Path) -> AttributeJudge:
        """Read a judge that `save` wrote.

        Args:
            path: the safetensors file.

        Returns:
            The judge.

        Raises:
            CheckpointError: if the file is missing, damaged, or of another format version.
            ModelMismatch: if it is no judge, or knows another world.
        """
        header = read_metadata(path)[1].get(CONFIG_KEY, "{}")
        try:
            config = json.loads(header)
        except ValueError:
            config = {}
        if config.get("kind") != KIND or config.get("world") != _world():
            raise ModelMismatch(
                f"{path.name} is not a judge of this rendered world; one is needed. Train it with train_judge."
            )
        if config["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"The format version of {path.name} is {config['format_version']}; {FORMAT_VERSION} is read. Train the "
                "judge again."
            )
        network = JudgeNetwork(config["width"], config["depth"])
        network.load_state_dict(read_tensors(path))
        return cls(network)

    def save(self, path: Path, recipe: str = "") -> None:
        """Write the judge to one safetensors file, as a whole or not at all."""
        config = {"kind": KIND, "format_version": FORMAT_VERSION, "world": _world(), "recipe": recipe}
        config |= {"width": self.network.width, "depth": self.network.depth}
        state = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        metadata = {CONFIG_KEY: json.dumps(config, sort_keys=True)}
        write_durably(path, lambda beside: save_file(state, beside, metadata))

    def judge(self, pictures: Sequence[FloatImage]) -> list[Seen]:
        """Judge square pictures.

        Args:
            pictures: [H, W, 3] each, in [0, 1]; other sizes than SIDE are scaled.

        Returns:
            What each shows.
        """
        seen: list[Seen] = []
        for start in range(0, len(pictures), _BATCH):
            batch = torch.stack([_prepared(picture) for picture in pictures[start : start + _BATCH]])
            with torch.no_grad():
                seen += decode(self.network(batch))
        return seen


def _world() -> list[list[str]]:
    return [list(names) for names in (SHAPES, PALETTE, MATERIALS, BACKGROUNDS, WEATHERS, MEDIA)]


def _prepared(picture: FloatImage) -> Tensor:
    pixels = torch.from_numpy(np.array(picture, np.float32)).movedim(-1, 0)
    if pixels.shape[1:] == (SIDE, SIDE):
        return pixels
    scaled = functional.interpolate(pixels[None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return scaled[0]


def decode(reading: Reading) -> list[Seen]:
    """Decide what pictures show: marks that stand higher than those around them are objects, four at most."""
    marks = reading.marks.float().sigmoid()
    any_shape = marks.sum(1)  # an object between two shapes is an object all the same
    highest = functional.max_pool2d(any_shape[:, None], 3, stride=1, padding=1)[:, 0]
    peaks = torch.where((any_shape == highest) & (any_shape > PRESENT), any_shape, 0)
    names = [list(group) for group in (BACKGROUNDS, WEATHERS, MEDIA)]
    looks = [logits.argmax(1).tolist() for logits in reading.looks]
    seen = []
    for row in range(len(marks)):
        order = peaks[row].flatten().argsort(descending=True)[:MOST_OBJECTS].tolist()
        cells = [divmod(cell, CELLS) for cell in order if peaks[row].flatten()[cell] > 0]
        shapes = _decode_shapes(reading, marks[row], row, cells)
        background, weather, medium = (group[look[row]] for group, look in zip(names, looks, strict=True))
        seen.append(Seen(background, weather, medium, shapes))
    return seen


def _decode_shapes(reading: Reading, marks: Tensor, row: int, cells: list[tuple[int, int]]) -> dict[str, SeenShape]:
    by_shape: dict[str, list[tuple[int, int]]] = {}
    for y, x in cells:
        by_shape.setdefault(SHAPES[int(marks[:, y, x].argmax())], []).append((y, x))
    shapes = {}
    for shape, places in by_shape.items():
        ys, xs = [y for y, _ in places], [x for _, x in places]
        colour = reading.colours[row, :, ys, xs].float().log_softmax(0).sum(1).argmax()
        material = reading.materials[row, :, ys, xs].float().log_softmax(0).sum(1).argmax()
        radius = float(reading.radii[row, ys, xs].float().exp().mean()) * RADIUS_UNIT
        centres = [_centre(marks.sum(0), y, x) for y, x in places]
        middle = sum(x for x, _ in centres) / len(centres), sum(y for _, y in centres) / len(centres)
        shapes[shape] = SeenShape(len(places), list(PALETTE)[int(colour)], MATERIALS[int(material)], radius, middle)
    return shapes


def _centre(marks: Tensor, y: int, x: int) -> tuple[float, float]:
    """The place of a mark [G, G], across and down, as the middle of what is marked around its highest cell."""
    rows, columns = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
    heights = marks[rows, columns]
    down = torch.arange(rows.start, min(CELLS, rows.stop)) + 0.5
    right = torch.arange(columns.start, min(CELLS, columns.stop)) + 0.5
    total = heights.sum()
    return float((heights.sum(0) * right).sum() / total) / CELLS, float((heights.sum(1) * down).sum() / total) / CELLS
