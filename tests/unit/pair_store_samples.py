"""Small pairs, the same every time, for the tests of the dataset."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import interpolate

from ip2p.ip2p_core.pair_record import ImageBytes, PairRecord, PairScores, pair_seed
from ip2p.ip2p_core.pair_store import Candidate, PairStore, PairWriter, SaveLimits, Unit
from ip2p.ip2p_core.randomness import generator
from ip2p.ip2p_core.triplet import Triplet, prompt_id

CONFIG = {"run_seed": 7, "mode": "published_code"}
RUN_SEED, NUM_SAMPLES, NUM_PROMPTS = 7, 4, 6
NO_LIMITS = SaveLimits(seconds=1e9)
TWO_PROMPTS = SaveLimits(rows=2 * NUM_SAMPLES, seconds=1e9)


def triplet(number: int) -> Triplet:
    return Triplet(f"a cat number {number}", f"make it dog {number}", f"a dog number {number}", "test")


def picture(seed: int, purpose: str, size: int = 12) -> ImageBytes:
    """A smooth picture, so that JPEG keeps it."""
    corners = torch.rand(1, 3, 2, 2, generator=generator(seed, purpose))
    return ImageBytes.from_tensor(interpolate(corners, size, mode="bilinear", align_corners=True)[0].permute(1, 2, 0))


def record(number: int, index: int, *, size: int = 12, has_mask: bool = False) -> PairRecord:
    texts = triplet(number)
    name = prompt_id(texts)
    seed = pair_seed(RUN_SEED, name, index)
    return PairRecord(
        prompt_id=name,
        sample_index=index,
        triplet=texts,
        seed=seed,
        p2p_threshold=0.1 + 0.1 * index,
        text_guidance_scale=7.5 + number,
        mode="published_code",
        scores=PairScores(0.25, 0.26, 0.8, 0.2 + 0.01 * index),
        original=picture(seed, "original", size),
        edited=picture(seed, "edited", size),
        mask=picture(seed, "mask", size) if has_mask else None,
    )


def rejected(number: int, index: int) -> Candidate:
    name = prompt_id(triplet(number))
    seed = pair_seed(RUN_SEED, name, index)
    return Candidate(name, index, seed, 0.5, 8.0, "published_code", PairScores(0.1, 0.1, 0.5, 0.0), "directional")


def unit(number: int, start: int = 0, stop: int = NUM_SAMPLES) -> Unit:
    return Unit(prompt_id(triplet(number)), start, stop)


def add_prompt(writer: PairWriter, number: int) -> bool:
    """Samples 0 and 2 are kept, 1 is rejected, 3 was not made; prompt 4 has no pair at all."""
    kept = [] if number == 4 else [record(number, 0), record(number, 2)]
    return writer.add(unit(number), kept, [rejected(number, 1)])


def add_all(folder: Path, limits: SaveLimits = TWO_PROMPTS) -> None:
    """Add all prompts that are not there yet; with these limits a shard holds two prompts."""
    with PairWriter(folder, CONFIG, limits) as writer:
        for number in range(NUM_PROMPTS):
            add_prompt(writer, number)


def content(folder: Path) -> tuple[dict[object, object], list[object]]:
    """Everything that a reader sees, independent of order and of the limits of shards."""
    store = PairStore(folder)
    pairs = {
        one.key: (one.triplet, one.seed, one.p2p_threshold, one.scores, one.original.read(), one.edited.read())
        for one in store.records()
    }
    ledger = [row for batch in store.ledger() for row in batch.to_pylist()]
    return pairs, sorted(ledger, key=lambda row: (row["prompt_id"], row["sample_index"]))
