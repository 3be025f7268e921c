"""Which part of the rendered world is drawn from: its shapes, colours, materials, looks, edits, and planted correlations."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...ip2p_core.errors import ConfigError
from .scene import (
    BACKGROUNDS,
    HELD_OUT_COMBINATIONS,
    LARGEST,
    MATERIALS,
    MEDIA,
    PALETTE,
    SHAPES,
    SIZES,
    SMALLEST,
    WEATHERS,
)
from .world_wordings import WORLD_EDIT_TYPES

MOST_OBJECTS = 4
RADII = {"small": (0.105, 0.12), "large": (0.15, 0.185)}
"""Ranges of the radius where both sizes occur."""
_KNOWN: dict[str, tuple[str, ...]] = {
    "shapes": SHAPES,
    "colours": tuple(PALETTE),
    "materials": MATERIALS,
    "sizes": SIZES,
    "backgrounds": tuple(BACKGROUNDS),
    "weathers": WEATHERS,
    "media": MEDIA,
    "edit_types": WORLD_EDIT_TYPES,
}
_NEEDED = {"recolour": "colours", "material": "materials", "background": "backgrounds", "weather": "weathers"} | {
    "medium": "media",
    "replace": "shapes",
}
"""Edits that need two values at least of a setting."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A correlation for a bias audit: a shape that nearly always has the same colour.

    Attributes:
        shape: one of the settings' shapes.
        colour: one of the settings' colours.
        share: of the scenes with that shape in which it has that colour, in [0, 1]; where an edit brings the shape or
            changes its colour, the same share of the edits that would break the correlation is left out.
    """

    shape: str
    colour: str
    share: float = 0.95


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """A part of the world.

    Attributes:
        shapes: of scene.SHAPES, more of them than groups of objects in a scene.
        colours: of scene.PALETTE; likewise.
        materials: of scene.MATERIALS.
        sizes: of scene.SIZES; a single one is not named in texts.
        backgrounds: of scene.BACKGROUNDS.
        weathers: of scene.WEATHERS.
        media: of scene.MEDIA.
        max_objects: most objects of a scene, 1 to 4.
        repeat_share: share of the objects that come as a group of two or more alike where there is room.
        edit_types: of world_wordings.WORLD_EDIT_TYPES.
        planted: a correlation, or none.
        radius_range: of objects, as fractions of the picture's side, where all have one size; None for the plain world's.
    """

    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(PALETTE)
    materials: tuple[str, ...] = MATERIALS
    sizes: tuple[str, ...] = SIZES
    backgrounds: tuple[str, ...] = tuple(BACKGROUNDS)
    weathers: tuple[str, ...] = WEATHERS
    media: tuple[str, ...] = MEDIA
    max_objects: int = MOST_OBJECTS
    repeat_share: float = 0.25
    edit_types: tuple[str, ...] = WORLD_EDIT_TYPES
    planted: Planted | None = None
    radius_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        mistakes = [*_unknown_values(self), *_impossible_edits(self), *_wrong_plant(self)]
        if not 1 <= self.max_objects <= MOST_OBJECTS:
            mistakes.append(
                f"max_objects is {self.max_objects}; a scene has 1 to {MOST_OBJECTS}. Choose such a number."
            )
        for name in ("shapes", "colours"):
            if len(getattr(self, name)) <= self.max_objects:
                mistakes.append(
                    f"{name} has {len(getattr(self, name))} values; scenes of up to {self.max_objects} objects need more "
                    f"than that. Name more {name}, or lower max_objects."
                )
        if mistakes:
            raise ConfigError(*mistakes)

    def radii(self, size: str) -> tuple[float, float]:
        """Range of the radius of an object of a size; the whole range of the plain world where all are large."""
        return (self.radius_range or (SMALLEST, LARGEST)) if self.sizes == ("large",) else RADII[size]


def _unknown_values(settings: WorldSettings) -> list[str]:
    mistakes = []
    for field in fields(settings):
        values = getattr(settings, field.name)
        unknown = [value for value in values if value not in _KNOWN[field.name]] if field.name in _KNOWN else []
        if unknown or values == ():
            known = ", ".join(_KNOWN[field.name])
            seen = f"holds {', '.join(map(repr, unknown))}" if unknown else "is empty"
            mistakes.append(f"{field.name} {seen}; the world knows {known}. Choose from these.")
    return mistakes


def _impossible_edits(settings: WorldSettings) -> list[str]:
    mistakes = [
        f"The edit {edit_type!r} needs at least two {name}; there is {len(getattr(settings, name))}. Name more, or leave "
        "the edit out of edit_types."
        for edit_type, name in _NEEDED.items()
        if edit_type in settings.edit_types and len(getattr(settings, name)) < 2
    ]
    crowded = [name for name in ("count", "swap") if name in settings.edit_types and settings.max_objects < 2]
    return mistakes + [
        f"The edit {name!r} needs two objects; max_objects is {settings.max_objects}. Raise it, or leave the edit out."
        for name in crowded
    ]


def _wrong_plant(settings: WorldSettings) -> list[str]:
    plant = settings.planted
    if plant is None:
        return []
    mistakes = []
    if plant.shape not in settings.shapes or plant.colour not in settings.colours:
        mistakes.append(
            f"A {plant.colour} {plant.shape} is planted; its shape and its colour must be among the settings'. Add them."
        )
    if (plant.colour, plant.shape) in HELD_OUT_COMBINATIONS:
        mistakes.append(
            f"A {plant.colour} {plant.shape} is planted, but that combination is held out. Plant another one."
        )
    if not 0 <= plant.share <= 1:
        mistakes.append(
            f"The share of the planted colour is {plant.share}; it must be in [0, 1]. Choose such a number."
        )
    return mistakes


FULL = WorldSettings()
SMALL = WorldSettings(
    materials=("plain",),
    sizes=("large",),
    weathers=("clear",),
    media=("flat",),
    max_objects=2,
    repeat_share=0.0,
    edit_types=("recolour", "replace", "add", "remove", "background", "count", "move", "swap", "viewpoint"),
)
"""One or two plain objects, as the plain world and the embedded generator know them."""
