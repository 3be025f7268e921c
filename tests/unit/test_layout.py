"""Places, colours and numbers of objects, whatever their outlines: right on exact renders, wrong on the originals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ip2p.trainer.proof.config import ProofConfig
from ip2p.trainer.shape_world.layout import LAYOUT_EDITS, changes_layout, is_laid_out, regions
from ip2p.trainer.shape_world.render import render
from ip2p.trainer.shape_world.scene import Scene, SceneObject
from ip2p.trainer.shape_world.world_edits import world_edit_at

WORLD = ProofConfig(output="-", max_objects=2).world
NUMBER, SIDE = 60, 64


def edits_of(kind):
    found = [world_edit_at("layout-test", 0, place, WORLD, kind, allow_held_out=True) for place in range(NUMBER)]
    return [edit for edit in found if changes_layout(edit)]


def blurred(picture):
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return sum(padded[y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)) / 9


def with_outline(scene, shape):
    return replace(scene, objects=tuple(replace(one, shape=shape) for one in scene.objects))


@pytest.mark.parametrize("kind", LAYOUT_EDITS)
def test_exact_results_are_laid_out_and_originals_are_not(kind):
    edits = edits_of(kind)
    assert len(edits) >= 0.8 * NUMBER
    exact = [render(edit.after, SIDE) for edit in edits]
    assert all(is_laid_out(edit, picture) for edit, picture in zip(edits, exact, strict=True))
    assert not any(is_laid_out(edit, render(edit.before, SIDE)) for edit in edits)
    soft = [is_laid_out(edit, blurred(picture)) for edit, picture in zip(edits, exact, strict=True)]
    assert np.mean(soft) >= 0.95


@pytest.mark.parametrize("kind", LAYOUT_EDITS)
def test_outlines_do_not_count(kind):
    edits = edits_of(kind)
    assert np.mean([is_laid_out(edit, render(with_outline(edit.after, "circle"), SIDE)) for edit in edits]) >= 0.95
    assert not any(is_laid_out(edit, render(with_outline(edit.before, "circle"), SIDE)) for edit in edits)


def test_colours_and_numbers_count():
    for edit in edits_of("swap"):
        others = {thing.colour for thing in edit.after.objects}
        gone = edit.after.with_object(0, None)
        assert not is_laid_out(edit, render(gone, SIDE))
        same = replace(edit.after, objects=tuple(replace(one, colour=min(others)) for one in edit.after.objects))
        assert not is_laid_out(edit, render(same, SIDE))


def test_regions_are_objects_not_soft_edges():
    scene = Scene("white", (SceneObject("circle", "blue", 0.3, 0.3, 0.2), SceneObject("star", "cyan", 0.7, 0.7, 0.2)))
    for picture in (render(scene, SIDE), blurred(render(scene, SIDE))):
        found = regions(picture, "white", ["blue", "cyan"])
        assert [one.colour for one in found] == ["blue", "cyan"]
        assert found[0].centre == pytest.approx((0.3, 0.3), abs=0.01)


def test_two_objects_of_one_colour_may_be_swapped_unseen():
    edit = next(edit for edit in edits_of("swap"))
    red = tuple(replace(one, colour="red") for one in edit.before.objects)
    swapped = tuple(replace(one, colour="red") for one in edit.after.objects)
    change = edit.change._replace(before=replace(edit.before, objects=red), after=replace(edit.after, objects=swapped))
    assert not changes_layout(replace(edit, change=change))
    assert not changes_layout(world_edit_at("layout-test", 0, 0, WORLD, "recolour"))
