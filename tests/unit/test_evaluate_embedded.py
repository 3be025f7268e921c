"""What the measurement of the embedded editor makes of pictures whose edits are known."""

import random
from dataclasses import replace

import torch

from ip2p.trainer.evaluate_embedded import SceneScore, others_kept, summarise
from ip2p.trainer.shape_world.edits import random_edit
from ip2p.trainer.shape_world.render import render
from ip2p.trainer.shape_world.scene import random_scene

SIZE = 64


def test_others_are_kept_where_they_have_their_colour_still():
    shares = []
    for seed in range(10):
        rng = random.Random(seed)
        edit = random_edit(rng, random_scene(rng, 3), "recolour")
        both = [replace(thing, colour=edit.colour) for thing in edit.before.objects]
        all_of_it = replace(edit.before, objects=tuple(both))
        exact, spread = (torch.from_numpy(render(scene, SIZE)) for scene in (edit.after, all_of_it))
        assert others_kept(exact, edit) == (True, True)
        others = [thing.colour for thing in edit.before.objects if thing not in edit.changed]
        expected = tuple(colour == edit.colour for colour in others)
        assert others_kept(spread, edit) == expected
        shares += expected
    assert not all(shares)


def test_the_share_of_others_is_over_objects_and_missing_where_there_are_none():
    rng = random.Random(0)
    edit = random_edit(rng, random_scene(rng, 1), "recolour")
    scores = [
        SceneScore(edit, is_colour_right=True, outside=0.0, distance=None, kept=kept) for kept in ((), (True, False))
    ]
    assert summarise(scores)["others_kept"] == 0.5
    assert summarise(scores[:1])["others_kept"] is None
    assert summarise(scores)["whole"] == 0.5, "an edit is whole where the named object is right and all others are kept"
