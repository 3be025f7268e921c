from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ip2p.ip2p_core.attention_sharing import PublishedSharing
from ip2p.ip2p_core.errors import ConfigError
from ip2p.ip2p_core.guidance import guide_text
from ip2p.ip2p_core.open_clip_adapter import token_strings
from ip2p.ip2p_core.pair_generation import (
    PairSettings,
    PaperTextSettings,
    batch_rows,
    draw_samples,
    make_record,
    make_sharing,
    pair_rows,
    row_captions,
)
from ip2p.ip2p_core.pair_record import pair_seed
from ip2p.ip2p_core.prompt_alignment import Caption
from ip2p.ip2p_core.prompt_to_prompt import PromptToPrompt
from ip2p.ip2p_core.triplet import Triplet

TRIPLET = Triplet("a red circle", "make it blue", "a blue circle")


def read(text):
    return Caption(token_strings(text))


def test_a_sample_does_not_depend_on_which_others_are_drawn():
    together = draw_samples(TRIPLET, PairSettings(), 5)
    assert draw_samples(TRIPLET, PairSettings(), 5, [42]) == [together[42]]
    assert draw_samples(TRIPLET, PairSettings(), 6, [42]) != [together[42]]
    assert len({draw.seed for draw in together}) == 100


def test_a_million_samples_have_a_million_seeds():
    seeds = {pair_seed(0, f"{prompt:016x}", index) for prompt in range(10_000) for index in range(100)}
    assert len(seeds) == 1_000_000


def test_draws_fill_their_ranges_evenly():
    draws = draw_samples(TRIPLET, PairSettings(num_samples=4000), 0)
    ps = torch.tensor([draw.p2p_threshold for draw in draws])
    scales = torch.tensor([draw.text_guidance_scale for draw in draws])
    assert 0.1 <= float(ps.min()) < 0.11
    assert 0.89 < float(ps.max()) <= 0.9
    assert 7.5 <= float(scales.min()) < 7.6
    assert 14.9 < float(scales.max()) <= 15.0
    assert float(ps.mean()) == pytest.approx(0.5, abs=0.02)
    assert abs(float(torch.corrcoef(torch.stack([ps, scales]))[0, 1])) < 0.05


def test_each_pair_of_a_batch_shares_by_its_own_p():
    settings = PairSettings(num_samples=2)
    draws = draw_samples(TRIPLET, settings, 0)
    sharing = make_sharing(draws, [TRIPLET] * 2, settings, read)
    assert isinstance(sharing, PublishedSharing)
    assert sharing.source_rows == (0, 0, 2, 2)
    assert sharing.p2p_thresholds[::2] == sharing.p2p_thresholds[1::2] == tuple(draw.p2p_threshold for draw in draws)


def test_samples_that_share_their_original_differ_in_p_alone():
    settings = PairSettings(num_samples=6, edits_per_source=3)
    draws = draw_samples(TRIPLET, settings, 0)
    assert len({(draw.seed, draw.text_guidance_scale) for draw in draws}) == 2
    assert len({draw.p2p_threshold for draw in draws}) == 6
    rows = batch_rows(draws)
    assert [row.source for row in rows] == [0, 0, 0, 0, 4, 4, 4, 4]
    assert pair_rows(rows) == [0, 1, 0, 2, 0, 3, 4, 5, 4, 6, 4, 7]
    captions = row_captions(rows, [TRIPLET] * 6)
    assert captions == ([TRIPLET.caption] + [TRIPLET.edited_caption] * 3) * 2
    alone = draw_samples(TRIPLET, PairSettings(num_samples=6), 0)
    assert [draw.p2p_threshold for draw in alone] == [draw.p2p_threshold for draw in draws]


def test_in_the_mode_of_the_paper_p_is_the_span_of_cross_attention():
    settings = PairSettings(num_samples=1, mode="paper_text", paper_text=PaperTextSettings(kind="replace"))
    draws = draw_samples(TRIPLET, settings, 0)
    sharing = make_sharing(draws, [TRIPLET], settings, read)
    assert isinstance(sharing, PromptToPrompt)
    original, edited = sharing.edits
    assert original is None
    assert edited.cross_windows[0] == (0.0, draws[0].p2p_threshold)


@pytest.mark.parametrize(
    ("triplet", "words"),
    [
        (Triplet("a circle", "do nothing", "A circle."), "equal"),
        (Triplet("", "make it blue", "a blue circle"), "caption is empty"),
        (Triplet("a circle", "make it blue", " "), "edited_caption is empty"),
    ],
)
def test_texts_that_make_no_pair_are_refused(triplet, words):
    with pytest.raises(ConfigError, match=words):
        draw_samples(triplet, PairSettings(), 0)


def test_captions_may_be_equal_where_words_are_weighted():
    same = Triplet(TRIPLET.caption, "less red", TRIPLET.caption)
    paper = PaperTextSettings(kind="reweight", word_weights=(("red", 0.2),))
    settings = PairSettings(num_samples=1, mode="paper_text", paper_text=paper)
    draws = draw_samples(same, settings, 0)
    assert make_sharing(draws, [same], settings, read).edits[1].word_weights.min() == pytest.approx(0.2)


def test_triplets_of_an_edit_type_have_their_own_share_of_self_attention():
    paper = PaperTextSettings(kind="replace", self_replace=0.9, self_replace_of=(("replace", 0.5),))
    settings = PairSettings(num_samples=1, mode="paper_text", paper_text=paper)
    triplets = [replace(TRIPLET, edit_type=name) for name in ("replace", "colour", "")]
    draws = [draw for triplet in triplets for draw in draw_samples(triplet, settings, 0)]
    edits = make_sharing(draws, triplets, settings, read).edits
    assert [edit.self_window[1] for edit in edits if edit is not None] == pytest.approx([0.5, 0.9, 0.9])


def test_a_share_of_self_attention_beyond_all_steps_is_refused():
    with pytest.raises(
        ConfigError, match=r"(?s)self_replace is -0.1; it needs 0 to 1.*self_replace_of replace is 1.5"
    ) as raised:
        PaperTextSettings(self_replace=-0.1, self_replace_of=(("replace", 1.5), ("colour", 0.5)))
    assert "colour" not in str(raised.value)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        PairSettings(num_samples=0, p2p_range=(0.9, 0.1), guidance_range=(-1, 3), mode="both")
    assert len(caught.value.mistakes) == 4


def test_a_record_holds_the_pictures_as_png():
    settings = PairSettings(num_samples=1)
    (draw,) = draw_samples(TRIPLET, settings, 0)
    original, edited = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    record = make_record(draw, TRIPLET, settings, original, edited)
    torch.testing.assert_close(record.original.tensor(), original, atol=0.5 / 255 + 1e-6, rtol=0)
    assert record.key == (draw.prompt_id, 0)
    assert record.scores is None


def test_every_row_is_guided_with_its_own_scale():
    cond, uncond = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guided = guide_text(cond, uncond, torch.tensor([1.0, 0.0, 7.5]))
    torch.testing.assert_close(guided[0], cond[0])
    torch.testing.assert_close(guided[1], uncond[1])
    torch.testing.assert_close(guided[2], 7.5 * cond[2] - 6.5 * uncond[2])
