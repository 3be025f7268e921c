"""Figure 8 of the proof: which curves there are, and which points lie above SDEdit's line."""

from __future__ import annotations

import pytest

from ip2p.tests.unit.proof_samples import judged
from ip2p.trainer.proof.ceiling import CEILING
from ip2p.trainer.proof.tradeoff import EDITOR, EDITOR_TEXT, EXACT, SDEDIT_CURVE, lead, tradeoff_section, tradeoffs
from ip2p.trainer.proof.trials import IMAGE_SWEEP, SDEDIT, TEXT2LIVE, TEXT_SWEEP


def trial(system, setting, scale, directional, image):
    return judged(system, directional, image, **({setting: scale} if setting else {}))


TRIALS = [
    trial(SDEDIT, "strength", 0.9, 0.8, 0.6),
    trial(SDEDIT, "strength", 0.2, 0.4, 0.8),
    *(trial(TEXT_SWEEP, "text_scale", *one) for one in ((0.5, 0.5, 0.9), (1, 0.6, 0.75), (2, 0.7, 0.6), (3, 0.9, 0.9))),
    *(trial(IMAGE_SWEEP, "image_scale", *one) for one in ((1, 0.7, 0.5), (1.5, 0.7, 0.6), (2, 0.7, 0.55))),
    trial(TEXT2LIVE, "", 0, 0.7, 0.7),
    trial(CEILING, "", 0, 0.85, 0.62),
]


def test_points_are_compared_with_the_line_at_the_same_directional_similarity():
    curves = tradeoffs(TRIALS)
    assert list(curves) == [EDITOR, EDITOR_TEXT, SDEDIT_CURVE, TEXT2LIVE, EXACT]
    assert curves[EDITOR_TEXT].scales == [1, 2, 3], "below most edits are not done"
    leads = lead(curves[EDITOR_TEXT], curves[SDEDIT_CURVE])
    assert leads == {1: pytest.approx(0.05), 2: pytest.approx(-0.05)}, "the third is beyond what SDEdit reaches"


def test_the_report_says_which_scales_lie_above_sdedit_and_how_often_similarity_falls():
    text = tradeoff_section(tradeoffs(TRIALS))
    assert "Over the 3 image scales image similarity falls 1 times" in text
    assert (
        "text scale swept: of 2 points whose directional similarity SDEdit reaches, 1 lie above its line (scales 1)."
        in text
    )
    assert "image scale swept: of 3 points whose directional similarity SDEdit reaches, 0 lie above its line." in text
    assert "only 1 of them" in text
    assert "of 0.850 and an image similarity of 0.620, SDEdit comes to 0.800 and 0.600" in text


def test_without_a_text_sweep_and_text2live_the_rest_stands():
    some = [one for one in TRIALS if one.system in (SDEDIT, IMAGE_SWEEP)]
    assert "text scale" not in tradeoff_section(tradeoffs(some))
