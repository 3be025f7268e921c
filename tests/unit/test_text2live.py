"""Text2LIVE: its losses and optimiser are the published ones, and its layers do what they are optimised for."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch

from ip2p.ip2p_core.checkpoint import embedded_model_path
from ip2p.ip2p_core.clip_checkpoint import ScorerConfig
from ip2p.ip2p_core.clip_scorer import CLIPScorer
from ip2p.ip2p_core.errors import BadImage, BadInstruction, ConfigError, TrainingHalted
from ip2p.ip2p_core.open_clip_adapter import encode_with_tokens
from ip2p.ip2p_core.randomness import generator
from ip2p.tests.tiny_clip import MODEL_CFG, tiny_clip
from ip2p.trainer.baselines import text2live_losses as published
from ip2p.trainer.baselines.edit_layer import EditLayerNet, Layer, MadGrad, scales_for
from ip2p.trainer.baselines.text2live import Text2LiveSettings, text2live
from ip2p.trainer.baselines.text2live_views import ViewSettings, draw_recolouring, draw_views
from ip2p.trainer.shape_world.render import render
from ip2p.trainer.shape_world.scene import Scene, SceneObject

RNG = generator(0, "test")
PICTURE = torch.rand(24, 20, 3, generator=RNG)
FEW = ViewSettings(num_views=3)
QUICK = Text2LiveSettings(steps=3, width=8, num_scales=3, working_side=0, whole_every=2, views=FEW, lr=0.01)
STILL = ViewSettings(num_views=2, smallest_crop=1, flip=0, affine=0, perspective=0, jitter=0, grayscale=0)


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


def scorer(**changes: Any) -> CLIPScorer:
    config = ScorerConfig(model_cfg=MODEL_CFG | changes, licence="MIT")
    return CLIPScorer(tiny_clip(**changes).state_dict(), config, name="tiny.safetensors")


@lru_cache(maxsize=1)
def tiny() -> CLIPScorer:
    return scorer()


def run(settings: Text2LiveSettings = QUICK, seed: int = 0, image: torch.Tensor = PICTURE) -> Any:
    return text2live(tiny(), image, "a cat", "a dog", settings, seed=seed)


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def test_the_spherical_distance_is_half_the_square_of_the_angle():
    features, targets = doubles(3, 5), doubles(2, 5)
    literal = [math.acos(cosine(x, y)) ** 2 / 2 for x in features for y in targets]
    assert float(published.spherical_distance(features, targets)) == pytest.approx(sum(literal) / 6, rel=1e-12)


def test_the_directional_loss_is_the_mean_of_one_minus_the_cosines_of_all_changes():
    before, after, directions = doubles(3, 5), doubles(3, 5), doubles(2, 5)
    literal = [1 - cosine(after[n] - before[n], direction) for n in range(3) for direction in directions]
    assert float(published.directional_loss(before, after, directions)) == pytest.approx(sum(literal) / 6, rel=1e-12)


def test_the_structure_loss_is_the_mean_square_difference_of_the_cosines_of_all_tokens():
    tokens, edited = doubles(1, 4, 6), doubles(1, 4, 6)
    pairs = [(i, j) for i in range(4) for j in range(4)]
    literal = [(cosine(tokens[0, i], tokens[0, j]) - cosine(edited[0, i], edited[0, j])) ** 2 for i, j in pairs]
    assert float(published.structure_loss(tokens, edited)) == pytest.approx(sum(literal) / 16, rel=1e-12)


def test_the_sparsity_loss_is_l1_and_the_pseudo_l0():
    opacity = doubles(1, 1, 3, 2).sigmoid()
    values = opacity.flatten().tolist()
    l1, l0 = sum(values) / 6, sum(2 / (1 + math.exp(-5 * value)) - 1 for value in values) / 6
    assert float(published.sparsity_loss(opacity, 0.3, 0.7)) == pytest.approx(0.3 * l1 + 0.7 * l0, rel=1e-12)


def test_madgrad_takes_the_steps_of_its_paper():
    value = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimiser = MadGrad([value], momentum=0.9, weight_decay=0.01, eps=1e-6)
    start = x = 1.5
    s = v = 0.0
    for k, lr in enumerate((0.1, 0.08, 0.05)):
        (value**3).sum().backward()
        optimiser.step(lr)
        gradient, weight = 3 * x**2 + 0.01 * x, lr * math.sqrt(k + 1)
        s, v = s + weight * gradient, v + weight * gradient**2
        x = 0.9 * x + 0.1 * (start - s / (v ** (1 / 3) + 1e-6))
        assert value.item() == pytest.approx(x, rel=1e-12)


def test_an_opacity_of_0_leaves_the_picture_bit_for_bit_and_one_of_1_the_layer():
    picture, colour = torch.rand(2, 1, 3, 16, 16, generator=RNG)
    assert torch.equal(Layer(colour, torch.zeros(1, 1, 16, 16)).over(picture), picture)
    assert torch.equal(Layer(colour, torch.ones(1, 1, 16, 16)).over(picture), colour)


def test_behind_the_layer_is_the_published_green():
    layer = Layer(torch.ones(1, 3, 2, 2), torch.full((1, 1, 2, 2), 0.25))
    assert (layer.over_green()[0, :, 1, 1] * 255).tolist() == pytest.approx([63.75, 196.5, 111.75])


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (64, 50)])
def test_the_network_paints_a_layer_of_any_size(size):
    layer = EditLayerNet(8, 4, scales_for(min(size), 7))(torch.rand(1, 3, *size, generator=RNG))
    assert (layer.colour.shape, layer.opacity.shape) == ((1, 3, *size), (1, 1, *size))


@pytest.mark.parametrize(("side", "scales"), [(1, 1), (4, 1), (8, 2), (16, 3), (348, 7), (4000, 7)])
def test_the_size_is_halved_as_often_as_two_pixels_stay(side, scales):
    assert scales_for(side, 7) == scales


@pytest.mark.parametrize("flip", [0, 1])
def test_a_view_without_changes_is_the_picture_mirrored_or_not(flip):
    picture = torch.rand(1, 3, 12, 12, generator=RNG)
    expected = (picture.flip(-1) if flip else picture).expand(2, -1, -1, -1)
    torch.testing.assert_close(draw_views(generator(0), 12, replace(STILL, flip=flip)).of(picture), expected)


def test_cropped_views_lie_inside_the_picture_and_the_first_shows_all_of_it():
    views = draw_views(generator(1), 10, replace(STILL, num_views=40, smallest_crop=0.6))
    first, last = views.grid[:, 0, 0], views.grid[:, -1, -1]  # middles of the outermost of 10 pixels
    sides = (last - first) * 10 / 9
    assert float((first + last).abs().add(sides).max()) / 2 <= 1 + 1e-6
    assert sides[0].tolist() == pytest.approx([2, 2])
    assert (float(sides.min()), float(sides[1:].max())) == (pytest.approx(1.2, abs=0.1), pytest.approx(2, abs=0.1))


def test_what_lies_outside_the_picture_is_filled():
    views = draw_views(generator(2), 16, replace(STILL, num_views=30, affine=1.0, perspective=1.0))
    seen = views.of(torch.full((1, 3, 16, 16), 0.25))
    expected = torch.where(views.is_inside, 0.25, 1.0).expand(-1, 3, -1, -1)
    torch.testing.assert_close(seen, expected)
    # what the affine map cuts off does not come back with the perspective map
    is_in_picture = views.grid.abs().amax(dim=3) <= 1
    assert bool((is_in_picture | ~views.is_inside[:, 0]).all())
    assert 0.2 < float(views.is_inside.float().mean()) < float(is_in_picture.float().mean()) - 0.02


def test_grey_views_have_the_brightness_of_the_picture_and_no_colour():
    picture = torch.rand(1, 3, 6, 6, generator=RNG)
    grey = draw_recolouring(generator(0), 1, share=0.0, strength=0.1, grayscale=1.0).apply(picture)
    luma = 0.299 * picture[:, 0] + 0.587 * picture[:, 1] + 0.114 * picture[:, 2]
    torch.testing.assert_close(grey, luma[:, None].expand(-1, 3, -1, -1))


def test_changed_colours_keep_greys_grey_and_stay_in_range():
    pictures = torch.rand(50, 1, 4, 4, generator=RNG).expand(-1, 3, -1, -1)
    changed = draw_recolouring(generator(0), 50, share=1.0, strength=0.5, grayscale=0.0).apply(pictures)
    torch.testing.assert_close(changed[:, 0], changed[:, 2], atol=2e-3, rtol=0)
    assert (float(changed.min()), float(changed.max())) == (0.0, 1.0)


def test_the_tokens_are_those_that_the_last_block_reads():
    model, pixels = tiny().model, torch.randn(2, 3, 32, 32, generator=RNG)
    features, tokens = encode_with_tokens(model, pixels)
    assert tokens is not None
    assert torch.equal(features, model.encode_image(pixels))
    visual = model.visual
    again = visual.ln_post(visual.transformer.resblocks[-1](tokens))[:, 0] @ visual.proj
    torch.testing.assert_close(again, features)


def test_captions_stand_in_their_templates():
    texts = published.encode_captions(tiny(), ("a cat", "a dog"), ("photo of {}.", "{}"), ("{} over green",))
    words = ["photo of a cat.", "a cat", "photo of a dog.", "a dog", "a dog over green"]
    found = torch.nn.functional.normalize(torch.cat(texts), dim=1)
    torch.testing.assert_close(found, tiny().embed_texts(words))
    assert float((texts.source.norm(dim=1) - 1).abs().min()) > 0.05  # as long as CLIP made them


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    first, again = run(), run()
    assert torch.equal(first.image, again.image)
    assert first.losses == again.losses
    still = replace(QUICK, steps=1, lr=0, smallest_lr=0)  # the network as it starts
    assert not torch.equal(run(still).image, run(still, seed=1).image)


def test_an_edit_leaves_the_random_state_and_the_picture_alone():
    state, picture = torch.random.get_rng_state(), PICTURE.clone()
    run()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(PICTURE, picture)


def test_the_result_is_the_layer_over_the_picture_at_its_own_size():
    result = run(replace(QUICK, working_side=16))
    assert (result.image.shape, result.layer.shape, result.opacity.shape) == ((24, 20, 3), (24, 20, 3), (24, 20))
    opacity = result.opacity[..., None]
    torch.testing.assert_close(result.image, (1 - opacity) * PICTURE + opacity * result.layer)


def test_the_total_is_the_weighted_sum_of_the_losses():
    weights = {"composition": 0.5, "screen": 0.25, "structure": 3.0, "sparsity": 7.0}
    settings = replace(QUICK, **weights)
    for losses in run(settings).losses:
        total = sum(weight * losses[name] for name, weight in weights.items())
        assert losses == {**losses, "total": pytest.approx(total, rel=1e-5)}


def test_losses_without_weight_are_not_computed():
    assert set(run(replace(QUICK, screen=0, structure=0)).losses[0]) == {"composition", "sparsity", "total"}


def test_the_callback_hears_of_every_step():
    heard = {}
    losses = text2live(tiny(), PICTURE, "a cat", "a dog", QUICK, seed=0, callback=heard.__setitem__).losses
    assert list(heard.items()) == list(enumerate(losses))


def test_an_edit_works_inside_inference_mode():
    with torch.inference_mode():
        image = run(image=PICTURE.clone()).image
    assert torch.equal(image, run().image)


@pytest.mark.parametrize("size", [(1, 1), (3, 40)])
def test_very_small_pictures_can_be_edited(size):
    image = run(image=torch.rand(*size, 3, generator=RNG)).image
    assert image.shape == (*size, 3)
    assert bool(image.isfinite().all())


def test_a_clip_without_vision_transformer_leaves_the_structure_loss_out_and_says_so():
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    resnet = scorer(vision_cfg=vision)
    result = text2live(resnet, PICTURE, "a cat", "a dog", QUICK, seed=0)
    assert result.left_out == "tiny.safetensors has no vision transformer, so the structure loss is left out."
    assert "structure" not in result.losses[0]
    assert run().left_out == ""


@pytest.mark.parametrize("value", ["nan", "1.5"])
def test_values_that_are_no_brightness_are_refused(value):
    image = PICTURE.clone()
    image[2, 3, 1] = float(value)
    with pytest.raises(BadImage, match=f"values from .* to {value}; they must lie within 0 and 1"):
        run(image=image)


def test_a_batch_and_an_empty_caption_are_refused():
    with pytest.raises(BadImage, match=r"shape \[1, 24, 20, 3\]"):
        run(image=PICTURE[None])
    with pytest.raises(BadInstruction, match="'a cat' and ' '"):
        text2live(tiny(), PICTURE, "a cat", " ", QUICK, seed=0)


def test_losses_that_are_not_finite_halt_the_run():
    broken = scorer()
    broken.model.visual.proj.data.fill_(math.nan)
    with pytest.raises(TrainingHalted, match=r"losses of step 0 .* must be finite"):
        text2live(broken, PICTURE, "a cat", "a dog", QUICK, seed=0)


def test_wrong_settings_are_refused_all_at_once():
    with pytest.raises(ConfigError) as error:
        Text2LiveSettings(steps=0, lr=math.nan, smallest_crop=1.5, templates=("a cat",))
    assert len(error.value.mistakes) == 4


@lru_cache(maxsize=1)
def recoloured() -> dict[str, Any]:
    """A recoloured shape: losses and similarities of the edit, and how much of it lies on the shape."""
    clip = CLIPScorer.from_file(embedded_model_path("clip"))
    hexagon = SceneObject("hexagon", "orange", 0.6, 0.4, 0.22)
    scenes = [Scene("white", (replace(hexagon, colour=colour),)) for colour in ("orange", "red")]
    captions = [scene.caption() for scene in scenes]
    image, target = (torch.from_numpy(render(scene, 64)) for scene in scenes)
    result = text2live(clip, image, *captions, replace(Text2LiveSettings.small(), steps=40, working_side=48), seed=0)
    before, after = clip.score(
        torch.stack([image] * 2), torch.stack([image, result.image]), *([c] * 2 for c in captions)
    )
    change, mask = ((one - image).abs().mean(dim=2) for one in (result.image, target))
    return {
        "losses": [one["composition"] for one in result.losses],
        "directional": after.directional,
        "gain": after.caption_1 - before.caption_1,
        "inside": float(change[mask > 0.05].mean()),
        "outside": float(change[mask <= 0.05].mean()),
    }


def test_the_optimisation_lowers_the_composition_loss():
    losses = recoloured()["losses"]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_edit_follows_the_change_of_the_caption_and_is_nearer_to_it():
    assert recoloured()["directional"] > 0.7
    assert recoloured()["gain"] > 0.1


def test_the_edit_changes_the_shape_more_than_the_rest():
    assert recoloured()["inside"] > 1.5 * recoloured()["outside"]
