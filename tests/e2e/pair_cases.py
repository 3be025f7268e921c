"""What the tests of `ip2p pairs` share: settings on tiny models, and what a dataset holds."""

from __future__ import annotations

import json

from ip2p.ip2p_core.pair_store import PairStore

TRIPLETS = [
    {"caption": f"a {colour} circle", "instruction": "make it blue", "edited_caption": "a blue circle"}
    for colour in ("red", "green", "yellow")
]
NUM_SAMPLES, KEEP = 5, 2


def make_config(folder, models, **changes):
    triplets = folder / "triplets.jsonl"
    triplets.write_text("\n".join(map(json.dumps, TRIPLETS)), encoding="utf-8")
    settings = {
        "triplets": str(triplets), "output": str(folder / "pairs"), "models": str(models),
        "generator": "generator_a", "scorer": "clip_a", "num_samples": NUM_SAMPLES, "keep": KEEP,
        "width": 32, "height": 32, "steps": 2, "batch_size": 2, "device": "cpu", "safety": "off",
        "preset": "custom", "image_threshold": -1, "caption_threshold": -1, "directional_threshold": -1,
    }  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps({**settings, **changes}), encoding="utf-8")
    return path


def ledger(folder):
    rows = [row for batch in PairStore(folder).ledger() for row in batch.to_pylist()]
    names = ("prompt_id", "sample_index", "seed", "p2p_threshold", "text_guidance_scale", "is_accepted", "reason")
    return sorted(tuple(row[name] for name in names) for row in rows)


def pictures(folder):
    return {record.key: (record.original.tensor(), record.edited.tensor()) for record in PairStore(folder).records()}


def assert_same_pictures(one, other):
    """Equal pairs, and pictures within one step of 8 bits."""
    one, other = pictures(one), pictures(other)
    assert one.keys() == other.keys()
    for key in one:
        for a, b in zip(one[key], other[key], strict=True):
            assert (a - b).abs().max() <= 1 / 255 + 1e-6
