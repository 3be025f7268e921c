"""Captions of the whole world say all that is in a scene, in several ways."""

import random
from dataclasses import replace

from ip2p.trainer.shape_world.scene import Scene, SceneObject
from ip2p.trainer.shape_world.world import groups_of, random_world_scene
from ip2p.trainer.shape_world.world_captions import Phrasing, describe, place_of, random_phrasing, relation_of
from ip2p.trainer.shape_world.world_settings import FULL
from ip2p.trainer.shape_world.world_wordings import MEDIUM_NAMES, NUMBERS, WEATHER_NAMES

HEART = SceneObject("heart", "red", 0.25, 0.4, 0.16, material="stripes")
STAR = SceneObject("star", "orange", 0.75, 0.45, 0.11)


def test_captions_say_number_size_colour_material_relation_ground_weather_and_medium():
    scene = Scene("white", (HEART, STAR), "rain", "mosaic")
    assert describe(scene, Phrasing(is_related=True)) == (
        "a mosaic of a large red striped heart to the left of a small orange star on a white background in the rain"
    )
    assert describe(scene, Phrasing(frame=1, ground=1, has_tails=True, is_sized=False, placed=("star",))) == (
        "a heart in red with stripes and a star in orange on the right in front of a white background in the rain as a mosaic"
    )
    three = Scene("black", (HEART, replace(HEART, x=0.7), replace(HEART, y=0.8), STAR))
    assert describe(three, Phrasing(frame=2)) == (
        "a picture of three large red striped hearts and a small orange star on a black background"
    )
    assert describe(Scene("beige", ()), Phrasing()) == "an empty beige background"


def test_relations_are_those_of_the_places():
    one, other = groups_of(Scene("white", (HEART, STAR)))
    assert (relation_of(one, other), relation_of(other, one)) == ("to the left of", "to the right of")
    below = groups_of(Scene("white", (HEART, replace(STAR, x=0.3, y=0.8))))
    assert (relation_of(*below), relation_of(*below[::-1])) == ("above", "below")
    assert relation_of(*groups_of(Scene("white", (HEART, replace(STAR, x=0.65, y=0.8))))) is None


def test_places_are_said_by_thirds():
    places = [(0.2, 0.5), (0.8, 0.5), (0.5, 0.2), (0.5, 0.8), (0.2, 0.8), (0.5, 0.5)]
    words = [place_of(replace(STAR, x=x, y=y)) for x, y in places]
    assert words == [
        "on the left",
        "on the right",
        "at the top",
        "at the bottom",
        "at the bottom left",
        "in the middle",
    ]


def test_every_phrasing_names_everything_that_a_scene_holds():
    for seed in range(150):
        rng = random.Random(seed)
        scene = random_world_scene(rng, FULL)
        caption = describe(scene, random_phrasing(rng, is_sized=True))
        assert scene.background in caption
        assert (scene.weather == "clear") != (WEATHER_NAMES[scene.weather] in caption)
        assert (scene.medium == "flat") != (MEDIUM_NAMES[scene.medium] in caption)
        for group in groups_of(scene):
            one = group.first
            assert one.shape in caption
            assert one.colour in caption
            assert one.size in caption
            assert group.number == 1 or NUMBERS[group.number] in caption


def test_a_scene_is_said_in_many_ways():
    scene = Scene("white", (HEART, STAR))
    assert len({describe(scene, random_phrasing(random.Random(i), is_sized=True)) for i in range(100)}) > 20
