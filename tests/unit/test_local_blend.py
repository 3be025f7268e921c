from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.local_blend import LocalBlend, LocalBlendSettings, choose_words
from ip2p.tests.parity import prompt_to_prompt_reference as reference
from ip2p.tests.parity.prompt_to_prompt_reference import split_caption

CAPTIONS = [split_caption("a black cat on mat"), split_caption("a red bicycle on mat")]
WORDS = [["cat"], ["bicycle", "red"]]
SUBTRACTED = [["mat"], ["mat"]]


def peaked_maps(num_layers: int, seed: int) -> list[Tensor]:
    """Probabilities of layers [2 rows, 2 heads, 16 x 16 tokens, 77] with strong peaks."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(2, 2, 256, 77, generator=generator) * 3).softmax(-1) for _ in range(num_layers)]


def latents(seed: int = 1) -> Tensor:
    return torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("start", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("subtracted", [None, SUBTRACTED])
def test_blending_equals_the_published_one_after_every_step(start, subtracted):
    columns = choose_words(CAPTIONS, WORDS, subtracted)
    settings = LocalBlendSettings(threshold=0.6, subtract_threshold=0.7, start=start)
    ours = LocalBlend(columns, (0, 0), (64, 64), settings)
    theirs = reference.Blend(
        columns[..., 0], None if subtracted is None else columns[..., 1], int(start * 5), (0.6, 0.7)
    )
    for step in range(5):
        for layer, probabilities in enumerate(peaked_maps(3, seed=step)):
            ours.add(torch.einsum("rhqt,rtc->rqc", probabilities, columns))
            theirs.maps[layer] = theirs.maps.get(layer, 0) + probabilities
        x = latents(seed=step)
        torch.testing.assert_close(ours.blend(x, step, 5), theirs(x), rtol=0, atol=1e-6)


def test_outside_the_mask_an_edited_row_is_its_source_bit_for_bit():
    blend = LocalBlend(choose_words(CAPTIONS, WORDS), (0, 0), (64, 64), LocalBlendSettings(threshold=0.8))
    maps = torch.zeros(2, 16, 16, 1)
    maps[0, 2, 2], maps[1, 9, 12] = 1.0, 2.0
    blend.add(maps.flatten(1, 2))
    x = latents()
    out = blend.blend(x, 0, 4)
    changed = (out[1] != out[0]).any(0)
    wanted = torch.zeros(64, 64, dtype=torch.bool)
    wanted[4:16, 4:16] = wanted[32:44, 44:56] = True  # a map cell and its neighbours, four latent cells each
    assert torch.equal(changed, wanted)


def test_source_rows_stay_bit_for_bit():
    blend = LocalBlend(choose_words(CAPTIONS, WORDS), (0, 0), (64, 64))
    blend.add(torch.rand(2, 256, 1, generator=torch.Generator().manual_seed(0)))
    x = latents()
    assert torch.equal(blend.blend(x, 0, 4)[0], x[0])


def test_every_pair_of_a_batch_blends_with_its_own_source():
    columns = choose_words(CAPTIONS, WORDS)
    maps = torch.rand(4, 256, 1, generator=torch.Generator().manual_seed(0)) ** 4
    x = torch.cat([latents(1), latents(2)])
    both = LocalBlend(columns.repeat(2, 1, 1), (0, 0, 2, 2), (64, 64))
    both.add(maps)
    blended = both.blend(x, 0, 4)
    for rows in (slice(0, 2), slice(2, 4)):
        alone = LocalBlend(columns, (0, 0), (64, 64))
        alone.add(maps[rows])
        assert torch.equal(blended[rows], alone.blend(x[rows], 0, 4))


def test_words_without_any_map_leave_the_source_everywhere():
    blend = LocalBlend(choose_words(CAPTIONS, [[], []]), (0, 0), (64, 64))
    blend.add(torch.zeros(2, 256, 1))
    out = blend.blend(latents(), 0, 4)
    assert torch.equal(out[1], out[0])


@pytest.mark.parametrize(("size", "tokens"), [((64, 64), 256), ((96, 64), 384), ((30, 18), 40)])
def test_maps_come_from_layers_at_a_quarter_of_the_latents(size, tokens):
    blend = LocalBlend(choose_words(CAPTIONS, WORDS), (0, 0), size)
    assert [blend.wants(count) for count in (tokens, 4 * tokens, tokens // 4)] == [True, False, False]


def test_blending_without_any_map_says_which_size_is_missing():
    blend = LocalBlend(choose_words(CAPTIONS, WORDS), (0, 0), (64, 64), LocalBlendSettings(map_factor=8))
    with pytest.raises(ValueError, match="8 x 8 cells"):
        blend.blend(latents(), 0, 4)


def test_a_word_that_does_not_occur_in_its_row_is_refused():
    with pytest.raises(ConfigError, match="'cat' does not occur in 'a red bicycle on mat'"):
        choose_words(CAPTIONS, [["cat"], ["cat"]])


def test_all_settings_out_of_range_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        LocalBlendSettings(threshold=1.5, subtract_threshold=-1.0, start=2.0, map_factor=0)
    assert len(caught.value.mistakes) == 4
