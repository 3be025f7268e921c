"""The stages of the proof. Every one goes through a public command, which resumes; what a stage found is kept in stages/.

autoencoder and generator -> judge -> triplets -> pairs with and without sharing -> filter -> editors -> edits of renders.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ip2p_core.errors import Ip2pError
from ...ip2p_core.pair_store import PairStore
from ...ip2p_core.pair_store.durable_files import write_text_durably
from ...ip2p_core.pair_store.review import LIST_FORMAT
from .. import dataset_command, pairs_command
from ..shape_world.attribute_judge import AttributeJudge
from ..shape_world.judge_training import JudgePlan, measure_judge, train_judge
from ..shape_world.world_edits import WorldEdit
from .config import ProofConfig
from .edits import training_edits, write_rendered_pairs, write_triplets
from .selection import best_keys, calibrate

GENERATOR, BASE = "generator", "proof_base"
JUDGE = "judge"
SCORER = "clip"
"""Of pairs and edits: the embedded one."""
FRACTIONS = {"tenth": 0.1, "hundredth": 0.01}
SHARING: Mapping[str, Mapping[str, Any]] = {
    "both": {"mode": "paper_text", "self_replace": 0.9, "p_min": 0.1, "p_max": 0.9},
    "self-attention": {"mode": "published_code", "p_min": 0.1, "p_max": 0.9},
    "none": {"mode": "published_code", "p_min": 0.0, "p_max": 0.0},
}
"""What the pictures of a pair share: the cross-attention of their common words in a random part p of the steps, and
self-attention in nearly all (see `ProofConfig.self_replace_of`), as the paper's text has it; self-attention in a random part;
or nothing."""
JUDGED_EDITS = 500


class Run:
    """A run folder, and the stages that are done in it.

    Args:
        config: of the run.
        say: tells people what is going on.
    """

    def __init__(self, config: ProofConfig, say: Callable[[str], object]) -> None:
        self.config, self.folder, self.say = config, config.folder, say

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a stage unless it is done; what it returns is kept.

        Args:
            name: of the stage.
            work: does it, and returns what JSON can hold.

        Returns:
            What the work returned, now or in an earlier run.
        """
        path = self._stage_path(name)
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        self.say(f"Stage {name}.")
        text = json.dumps(work(), indent=1)
        write_text_durably(path, text)
        return json.loads(text)

    def is_done(self, name: str) -> bool:
        """Say whether a stage is done."""
        return self._stage_path(name).exists()

    def _stage_path(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"

    def write_settings(self, name: str, settings: dict[str, Any]) -> Path:
        """Write a settings file, which stays in the run folder for those who want to run its command by hand."""
        path = self.folder / "configs" / f"{name}.json"
        write_text_durably(path, json.dumps(settings, indent=1))
        return path

    def command(self, main: Callable[[Sequence[str]], int | None], name: str, settings: dict[str, Any]) -> None:
        """Run a command on a settings file; see `write_settings`.

        Args:
            main: of the command.
            name: of the settings.
            settings: for it.

        Raises:
            Ip2pError: if it does not finish.
        """
        path = self.write_settings(name, settings)
        if main([str(path)]):
            raise Ip2pError(f"The command of {path} did not finish. Look at its messages above, and run this again.")

    @property
    def models(self) -> Path:
        """Folder of the models."""
        return self.folder / "models"


def judge_stage(run: Run) -> dict[str, float]:
    """Train the judge, and measure it on renders that it never saw."""
    plan = JudgePlan(settings=run.config.world, seconds=run.config.judge_seconds, seed=run.config.seed)
    path = judge_path(run)
    judge = AttributeJudge.from_file(path) if path.exists() else train_judge(path, plan)
    clean = measure_judge(judge, run.config.world, num_edits=JUDGED_EDITS)
    worse = measure_judge(judge, run.config.world, num_edits=JUDGED_EDITS, is_worsened=True)
    return clean | {f"{name}, worsened": value for name, value in worse.items()}


def judge_path(run: Run) -> Path:
    """Where the judge lies."""
    return run.folder / "judge.safetensors"


def pairs_stage(run: Run, name: str, edits: Sequence[WorldEdit], *, sharing: str, num_samples: int) -> dict[str, Any]:
    """Sample pairs of the captions of edits, and keep every one with its scores.

    Args:
        run: the run folder.
        name: of the dataset.
        edits: whose captions and instructions are the triplets.
        sharing: what the pictures of a pair share, a key of SHARING.
        num_samples: pairs of each edit.

    Returns:
        How many there are.
    """
    config = run.config
    triplets = triplets_path(run, name)
    if not triplets.exists():
        write_triplets(triplets, edits)
    types = {one.edit_type for one in edits} if sharing == "both" else set()
    settings = {
        "triplets": str(triplets),
        "generator": BASE,
        "output": str(dataset(run, name)),
        "models": str(run.models),
        "seed": config.seed,
        "num_samples": num_samples,
        "keep": num_samples,
        **SHARING[sharing],
        "self_replace_of": {name: share for name, share in config.self_replace_of.items() if name in types},
        "guidance_min": config.guidance_min,
        "guidance_max": config.guidance_max,
        "width": config.size,
        "height": config.size,
        "steps": config.pair_steps,
        "dtype": "bfloat16" if config.precision == "bf16" else "auto",
        "preset": "custom",
        "image_threshold": -1.0,
        "caption_threshold": -1.0,
        "directional_threshold": -1.0,
        "batch_size": config.pair_batch_size,
        "workers": config.pair_workers,
        "unit_samples": num_samples,
        "safety": "off",
    }
    run.command(pairs_command.main, f"pairs_{name}", settings)
    return {"pairs": len(PairStore(dataset(run, name)))}


def dataset(run: Run, name: str) -> Path:
    """Where a dataset lies."""
    return run.folder / "data" / name


def triplets_path(run: Run, name: str) -> Path:
    """Where the triplets of a dataset lie."""
    return run.folder / "triplets" / f"{name}.jsonl"


def filter_stage(run: Run) -> dict[str, Any]:
    """Find thresholds that the wanted share of prompts survives, and make the datasets of the pairs with sharing."""
    config = run.config
    shared = list(PairStore(dataset(run, "shared")).records())
    thresholds = calibrate(shared, config.survival)
    best = best_keys(shared, thresholds, config.keep)
    prompts = sorted({key[0] for key in best})
    subsets = {"main": best, "unfiltered": random_keys([one.key for one in shared], len(best), config.seed)}
    for name, share in FRACTIONS.items():
        chosen = set(random.Random(f"{name}/{config.seed}").sample(prompts, max(2, round(share * len(prompts)))))
        subsets[name] = [key for key in best if key[0] in chosen]
    for name, keys in subsets.items():
        write_subset(run, name, "shared", keys)
    write_rendered_pairs(dataset(run, "rendered"), training_edits(config), config.size)
    kept = set(best)
    return {
        "thresholds": {"image": thresholds.image, "caption": thresholds.caption, "directional": thresholds.directional},
        "prompts": len({one.prompt_id for one in shared}),
        "prompts_left": len(prompts),
        "pairs": len(shared),
        "pairs_left": len(best),
        "kept": best,
        "accepted_p": [[one.triplet.instruction, one.p2p_threshold] for one in shared if one.key in kept],
        "sizes": {name: len(keys) for name, keys in subsets.items()},
    }


def unshared_stage(run: Run, kept: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Make pairs without sharing, and of each prompt as many as the filter left of those with it."""
    config = run.config
    edits, samples = training_edits(config), config.num_unshared
    found = pairs_stage(run, "unshared_all", edits, sharing="none", num_samples=samples)
    wanted = Counter(prompt for prompt, _ in kept)
    keys = [key for key in PairStore(dataset(run, "unshared_all")).pair_keys() if key[1] < wanted[key[0]]]
    write_subset(run, "unshared", "unshared_all", keys)
    return found


def self_attention_stage(run: Run) -> dict[str, int]:
    """Make pairs that share self-attention alone, and filter them as the others were."""
    config = run.config
    pairs_stage(
        run, "self_attention_all", training_edits(config), sharing="self-attention", num_samples=config.num_samples
    )
    return filter_pairs(run, "self_attention", "self_attention_all")


def filter_pairs(run: Run, name: str, source: str) -> dict[str, int]:
    """Leave in a copy of a dataset what passes thresholds that the wanted share of its prompts survives."""
    records = list(PairStore(dataset(run, source)).records())
    keys = best_keys(records, calibrate(records, run.config.survival), run.config.keep)
    write_subset(run, name, source, keys)
    return {"pairs": len(records), "pairs_left": len(keys)}


def random_keys(keys: Sequence[tuple[str, int]], number: int, seed: int) -> list[tuple[str, int]]:
    """Choose pairs at random, as the editor without the filter learns from them."""
    return random.Random(f"unfiltered/{seed}").sample(keys, min(number, len(keys)))


def write_subset(run: Run, name: str, source: str, keys: Sequence[tuple[str, int]]) -> None:
    """Leave all other pairs out of a copy of a dataset, as a person would with `ip2p dataset apply`; one that was begun goes on."""
    wanted = set(keys)
    rejected = [
        {"prompt_id": key[0], "sample_index": key[1]}
        for key in PairStore(dataset(run, source)).pair_keys()
        if key not in wanted
    ]
    path = run.folder / "data" / f"{name}_rejected.json"
    text = json.dumps({"format": LIST_FORMAT, "rejected": rejected})
    write_text_durably(path, text)
    if dataset_command.main(["apply", str(dataset(run, source)), str(path), "-o", str(dataset(run, name))]):
        raise Ip2pError(f"The dataset {name} could not be written. Look at the messages above, and run this again.")
