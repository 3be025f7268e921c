"""`python -m ip2p.benchmarks.pairs`: making pairs against a faithful loop of the published generator, interleaved.

The loop: one pair at a time in 100 steps of Euler ancestral, both pictures decoded, scored and written as JPEG one by one.
Ours: `ip2p pairs` on the same model, with one lever after another, each on top of those before. Printed are accepted pairs per
second, what the network computes for a pair, mean directional similarity, and which passing pairs an approximation loses. A
pair passes whose directional similarity reaches the median of the loop's; the best four that pass are accepted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from ..ip2p_core.image_tensor import to_pil
from ..ip2p_core.pair_generation import draw_samples
from ..ip2p_core.triplet import Triplet, prompt_id
from ..trainer.pair_config import PairsConfig
from ..trainer.pair_jobs import Recipe, do_jobs_here
from ..trainer.pair_sampler import sample_pairs
from ..trainer.pair_spool import Spool
from ..trainer.pair_units import UnitMaker
from .timing import measure, say

TRIPLET = Triplet("a red circle on a white background", "make it blue", "a blue circle on a white background")
LOOP = "loop of the published code"


@dataclass
class Outcome:
    """What one way to make the pairs came to."""

    directional: dict[int, float] = field(default_factory=dict)
    """Sample index -> similarity of the pairs that were finished."""
    num_rows: int = 0
    """Rows that went through the U-Net."""


def levers(config: PairsConfig) -> dict[str, PairsConfig]:
    """One lever after another, each on top of those before; the last but two are approximations."""
    batches = replace(config, batch_size=config.num_samples)
    sources = replace(batches, edits_per_source=4)
    steps = replace(sources, steps=max(1, config.steps // 4))
    early = replace(steps, reject_at=0.5)
    full = replace(early, stop_when_full=True, unit_samples=4, batch_size=4)
    return {
        "ours, in batches": batches,
        "+ one original, 4 edited": sources,
        "+ a quarter of the steps": steps,
        "+ early rejection": early,
        "+ stop when full": full,
    }


def published_loop(maker: UnitMaker, config: PairsConfig, folder: Path) -> dict[int, float]:
    """One pair at a time, as the published code does; returns sample index -> similarity."""
    scores = {}
    for draw in draw_samples(TRIPLET, config.pair_settings(), config.seed):
        pictures = sample_pairs(maker.model, [draw], [TRIPLET], config.pair_settings(), config.sampling())
        (score,) = maker.scorer.score(pictures[:1], pictures[1:], [TRIPLET.caption], [TRIPLET.edited_caption])
        for number, picture in enumerate(pictures):
            to_pil(picture).save(folder / f"{draw.seed}_{number}.jpg", quality=100)
        scores[draw.sample_index] = score.directional
    return scores


def ours(maker: UnitMaker, config: PairsConfig, folder: Path) -> dict[int, float]:
    """The units of `ip2p pairs`, spool included; returns sample index -> similarity of finished pairs."""
    spool = Spool(folder)
    maker.config, maker.settings = config, config.pair_settings()
    for _ in do_jobs_here(maker, Recipe(config, {prompt_id(TRIPLET): TRIPLET}, folder), spool):
        pass
    scores = {}
    for unit in spool.units():
        result = spool.get(unit)
        for one in [] if result is None else [*result.passing, *result.rejected]:
            if one.scores is not None and not getattr(one, "reason", "").startswith("early_"):
                scores[one.sample_index] = one.scores.directional
    return scores


@contextmanager
def counting(unet: Any, outcome: Outcome) -> Any:
    """Count the rows that go through the network."""

    def count(_module: Any, inputs: tuple[Any, ...]) -> None:
        outcome.num_rows += len(inputs[0])

    outcome.num_rows = 0
    handle = unet.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


def flops_of_a_row(maker: UnitMaker, config: PairsConfig) -> float:
    """What the network computes for one row."""
    few = replace(config, num_samples=1, steps=1)
    outcome, counter = Outcome(), FlopCounterMode(display=False)
    with counter, counting(maker.model.unet, outcome):
        draws = draw_samples(TRIPLET, few.pair_settings(), 0)
        sample_pairs(maker.model, draws, [TRIPLET], few.pair_settings(), few.sampling())
    decoding = FlopCounterMode(display=False)
    size = config.width // maker.model.codec.factor
    with decoding:
        maker.model.codec.decode(maker.model.schedule.sigmas.new_zeros(2, 4, size, size))
    return (counter.get_total_flops() - decoding.get_total_flops()) / outcome.num_rows


def contender(
    make: Callable[[UnitMaker, PairsConfig, Path], dict[int, float]],
    maker: UnitMaker,
    config: PairsConfig,
    outcome: Outcome,
) -> Callable[[], None]:
    """One way to make the pairs, ready to be timed."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder, counting(maker.model.unet, outcome):
            outcome.directional = make(maker, config, Path(folder))

    return run


def main() -> None:
    """Compare on the embedded generator, or another model."""
    parser = argparse.ArgumentParser(prog="python -m ip2p.benchmarks.pairs", description=__doc__)
    parser.add_argument("--models", default="models", help="folder of other models")
    parser.add_argument("--model", default="generator", help="a text-to-image model (default: the embedded one)")
    parser.add_argument("--scorer", default="clip", help="an open_clip model (default: the embedded one)")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--guidance", type=float, nargs=2, default=(2.0, 4.0))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = PairsConfig(
        triplets="", output="", models=options.models, generator=options.model, scorer=options.scorer, safety="off",
        num_samples=options.pairs, steps=options.steps, width=options.size, height=options.size, keep=4,
        guidance_min=options.guidance[0], guidance_max=options.guidance[1],
        preset="custom", image_threshold=-1.0, caption_threshold=-1.0, directional_threshold=-1.0,
    )  # fmt: skip
    maker = UnitMaker.load(config)
    with tempfile.TemporaryDirectory() as folder:
        found = published_loop(maker, config, Path(folder))
    config = replace(config, directional_threshold=max(-1.0, statistics.median(found.values())))
    outcomes = {LOOP: Outcome()}
    contenders = {LOOP: contender(published_loop, maker, config, outcomes[LOOP])}
    for name, lever in levers(config).items():
        outcomes[name] = Outcome()
        contenders[name] = contender(ours, maker, lever, outcomes[name])
    seconds = measure(contenders, options.rounds)
    device = f"{maker.model.device}, {maker.model.dtype}"
    say(
        f"\nMaking pairs ({options.model}, {options.size} px, {options.pairs} samples, {options.steps} steps, {device})"
    )
    print_results(outcomes, seconds, config, flops_of_a_row(maker, config))


def print_results(
    outcomes: dict[str, Outcome], seconds: dict[str, list[float]], config: PairsConfig, row_flops: float
) -> None:
    """Say what every lever brings, and what it loses."""
    cut = config.directional_threshold
    before: Outcome | None = None
    rates = {}
    for name, outcome in outcomes.items():
        passing = {index for index, value in outcome.directional.items() if value >= cut}
        kept = sorted((outcome.directional[index] for index in passing), reverse=True)[: config.keep]
        time, flops = statistics.median(seconds[name]), outcome.num_rows * row_flops
        rates[name] = [len(kept) / one for one in seconds[name]]
        factor = statistics.median(own / loop for own, loop in zip(rates[name], rates[LOOP], strict=True))
        mean = statistics.mean(kept) if kept else float("nan")
        lost = ""
        if before is not None and name in ("ours, in batches", "+ a quarter of the steps", "+ early rejection"):
            had = {index for index, value in before.directional.items() if value >= cut}
            lost = f"; loses {len(had - passing)} of the {len(had)} that passed before"
        say(
            f"  {name:28} {time:7.2f} s, {len(kept) / time:6.3f} accepted/s = {factor:5.2f} x the loop; "
            f"{1e12 * len(kept) / flops:6.3f} accepted per TFLOP; their directional similarity {mean:.3f}{lost}"
        )
        before = outcome


if __name__ == "__main__":
    main()
