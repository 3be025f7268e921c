"""The settings of `ip2p proof`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ...ip2p_core.config_file import build_config, read_record, too_low
from ...ip2p_core.errors import ConfigError
from ..shape_world.world_settings import SMALL, WorldSettings

EDIT_TYPES = ("recolour", "background", "replace")
"""The edits of the chain; the first two change an attribute, the third a shape."""
ATTRIBUTE_EDITS = EDIT_TYPES[:2]
SPATIAL_EDITS = ("move", "viewpoint")
"""What the paper names among its failures, as far as one object in the picture goes."""
PAIR_EDITS = ("count", "swap")
"""The same, of two objects."""
RADIUS = {1: (0.26, 0.36), 2: (0.17, 0.23)}
"""Of objects, by how many there are at most, as a fraction of the picture's side: of one alone 4 to 6 latent cells across at 32 pixels."""
VARIANTS = {
    "main": "trained on pairs with shared attention, filtered",
    "unfiltered": "the same without the filter",
    "self_attention": "on pairs that share self-attention alone, as the published code does, filtered in the same way",
    "unshared": "on pairs without shared attention, the same number of each prompt",
    "scratch": "on the filtered pairs, but from random weights instead of the generator's",
    "tenth": "on 10 % of the filtered pairs",
    "hundredth": "on 1 % of the filtered pairs",
    "rendered": "on exact renders of the same edits: what these data would give if generated pairs were perfect",
    "longer": "trained further, on the same pairs, for as many steps again",
}
STUDIES = {
    "failures": ("spatial", "spatial_rendered"),
    "bias": ("planted", "balanced"),
    "errors": ("spoiled", "screened"),
}
"""Further studies, each with its editors: of what the method cannot do, of what it takes over, and of what the filter keeps out."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "cpu": {},
    "cpu64": {
        "size": 64,
        "autoencoder_minutes": 3.0,
        "generator_minutes": 75.0,
        "generator_batch_size": 32,
        "num_prompts": 2000,
        "num_samples": 2,
        "pair_workers": 2,
        "self_replace_of": {"replace": 0.5},
        "judge_seconds": 480.0,
        "train_steps": 6000,
        "precision": "bf16",
        "compile": True,
        "variants": ["main", "unfiltered", "unshared", "scratch", "tenth", "hundredth", "rendered"],
        "sweep_seeds": 1,
        "num_text2live": 6,
    },
    "gpu": {
        "size": 64,
        "autoencoder_minutes": 0.5,
        "autoencoder_batch_size": 64,
        "generator_minutes": 2.3,
        "generator_batch_size": 128,
        "num_scenes": 12_000,
        "pair_batch_size": 256,
        "pair_workers": 4,
        "self_replace_of": {"replace": 0.5},
        "study_prompts": 1000,
        "study_steps": 1300,
        "judge_seconds": 420.0,
        "train_steps": 2000,
        "batch_size": 32,
        "learning_rate": 1.2e-3,
        "train_workers": 7,
        "variants": ["main", "unfiltered", "unshared", "scratch", "tenth", "hundredth", "rendered"],
        "sweep_seeds": 1,
        "num_text2live": 4,
    },
    "smoke": {
        "size": 32,
        "num_prompts": 24,
        "autoencoder_minutes": 0.05,
        "generator_minutes": 0.05,
        "num_scenes": 24,
        "study_prompts": 24,
        "study_steps": 4,
        "pair_steps": 2,
        "judge_seconds": 4.0,
        "train_steps": 4,
        "train_workers": 1,
        "batch_size": 4,
        "seeds": [0],
        "num_tests": 3,
        "num_tuned": 2,
        "edit_steps": 2,
        "text_scales": [1, 3],
        "image_scales": [1, 2],
        "strengths": [0.5, 0.9],
        "num_text2live": 1,
        "text2live_steps": 2,
        "variants": ["main", "self_attention", "scratch", "rendered", "longer"],
        "studies": ["failures", "bias", "errors"],
    },
}
"""What differs from the defaults, which are those of "cpu"."""


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """Settings of a run, as the JSON file names them.

    Attributes:
        output: run folder: data, models, log.
        report: folder of the report; empty for `report` in the run folder.
        preset: a key of PRESETS; other settings win over it. "cpu64" is for two processor cores with bfloat16.
        seed: of the data.
        seeds: of the trainings and edits; every figure is an average over them.
        size: side of the pictures in pixels.
        max_objects: of a picture, 1 or 2; with two the failures are studied in counting and swapping too.
        autoencoder_minutes: of training of the world's own autoencoder.
        autoencoder_batch_size: pictures in a step of it.
        generator_minutes: of training of its text-to-image model.
        generator_batch_size: pictures in a step of it.
        num_scenes: renders that both learn from.
        num_prompts: triplets.
        num_samples: pairs of each before the filter.
        keep: at most so many of each after it.
        pair_steps: sampling steps of the pairs.
        pair_batch_size: pairs that are sampled together.
        pair_workers: processes that sample them.
        self_replace_of: in which part of the steps pairs of an edit type share self-attention, instead of .9: less lets shapes change.
        guidance_min: lowest text guidance scale of the pairs.
        guidance_max: highest.
        survival: share of the prompts that the filter leaves; the paper's data has .69.
        judge_seconds: of training of the judge.
        train_steps: of every editor.
        batch_size: pairs in a step.
        learning_rate: at its peak.
        precision: number format that editors are trained in and, if it is "bf16", pairs are sampled in; else "fp32".
        compile: compile the U-Nets of generator and editors; takes minutes at first, and pays on processors with bfloat16.
        train_workers: editors that are trained side by side; the processor cores are shared out among them.
        variants: which editors are trained, keys of VARIANTS; "main" and "longer" with every seed.
        variant_seeds: with how many of the seeds, from the first on, the others are trained.
        sweep_seeds: with how many of the seeds, from the first on, the best editor edits over both scales.
        studies: which further studies are made, with the first seed, keys of STUDIES.
        study_prompts: triplets of each study.
        study_steps: of the editors of the studies, which have fewer pairs to learn.
        num_tests: renders that are edited, of each kind of edit.
        num_tuned: other renders on which the scales are chosen.
        edit_steps: sampling steps of an edit.
        text_scales: text guidance scales.
        image_scales: image guidance scales.
        strengths: of SDEdit.
        num_text2live: renders that Text2LIVE edits; it takes half a minute for each.
        text2live_steps: of its optimiser; 0 for its own.
    """

    output: str
    report: str = ""
    preset: str = "cpu"
    seed: int = 0
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    size: int = 32
    max_objects: int = 1
    autoencoder_minutes: float = 10.0
    autoencoder_batch_size: int = 8
    generator_minutes: float = 45.0
    generator_batch_size: int = 64
    num_scenes: int = 8000
    num_prompts: int = 2500
    num_samples: int = 4
    keep: int = 2
    pair_steps: int = 16
    pair_batch_size: int = 24
    pair_workers: int = 1
    self_replace_of: dict[str, float] = field(default_factory=dict)
    guidance_min: float = 2.0
    guidance_max: float = 3.5
    survival: float = 0.69
    judge_seconds: float = 540.0
    train_steps: int = 8000
    batch_size: int = 8
    learning_rate: float = 8e-4
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    train_workers: int = 2
    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    variant_seeds: int = 1
    sweep_seeds: int = 3
    studies: list[str] = field(default_factory=lambda: list(STUDIES))
    study_prompts: int = 700
    study_steps: int = 4000
    num_tests: int = 40
    num_tuned: int = 24
    edit_steps: int = 6
    text_scales: list[float] = field(default_factory=lambda: [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5])
    image_scales: list[float] = field(default_factory=lambda: [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3])
    strengths: list[float] = field(default_factory=lambda: [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    num_text2live: int = 8
    text2live_steps: int = 0

    def __post_init__(self) -> None:
        lowest = {"num_prompts": 12, "num_samples": 1, "keep": 1, "pair_steps": 1, "train_steps": 1, "batch_size": 1}
        lowest |= {"pair_batch_size": 1, "pair_workers": 1, "train_workers": 1}
        lowest |= {"study_prompts": 12, "study_steps": 1, "autoencoder_batch_size": 1, "generator_batch_size": 1}
        lowest |= {
            "num_tests": 1,
            "num_tuned": 1,
            "edit_steps": 1,
            "num_text2live": 0,
            "size": 32,
            "variant_seeds": 0,
            "sweep_seeds": 1,
        }
        mistakes = too_low(self, lowest)
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown or "main" not in self.variants:
            mistakes.append(f"variants is {self.variants}; name 'main', and others of {', '.join(VARIANTS)}.")
        if not set(self.studies) <= set(STUDIES):
            mistakes.append(f"studies is {self.studies}; choose from {', '.join(STUDIES)}.")
        if self.max_objects not in RADIUS:
            mistakes.append(f"max_objects is {self.max_objects}; choose 1 or 2.")
        if not 0 < self.survival <= 1:
            mistakes.append(f"survival is {self.survival:g}; it must be above 0 and at most 1.")
        if not self.seeds:
            mistakes.append("There are no seeds. Give at least one, as [0].")
        if mistakes:
            raise ConfigError(*mistakes)

    def variants_of(self, seed: int) -> list[str]:
        """Which editors are trained with a seed."""
        is_of_all = seed in self.seeds[: self.variant_seeds]
        return [name for name in self.variants if is_of_all or name in ("main", "longer")]

    def steps_of(self, variant: str) -> int:
        """Of the training of an editor."""
        is_of_study = any(variant in some for some in STUDIES.values())
        return self.study_steps if is_of_study else self.train_steps

    @property
    def num_unshared(self) -> int:
        """Pairs of each prompt without sharing: as many as the filter may leave of those with it."""
        return min(self.keep, self.num_samples)

    @property
    def best(self) -> str:
        """The editor whose scales are tuned and swept."""
        return "longer" if "longer" in self.variants else "main"

    @property
    def world(self) -> WorldSettings:
        """One or two large plain objects before a plain background: what small networks learn to draw in minutes."""
        values = {name: getattr(SMALL, name) for name in ("materials", "sizes", "weathers", "media", "repeat_share")}
        return WorldSettings(
            **values,
            max_objects=self.max_objects,
            edit_types=EDIT_TYPES + self.spatial_edits,
            radius_range=RADIUS[self.max_objects],
        )

    @property
    def lone_world(self) -> WorldSettings:
        """The same with one object, so that a picture's colours are those of its only shape."""
        return replace(self, max_objects=1).world

    @property
    def spatial_edits(self) -> tuple[str, ...]:
        """What the study of failures asks for besides changes of attributes."""
        return SPATIAL_EDITS + (PAIR_EDITS if self.max_objects > 1 else ())

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output)

    @property
    def report_folder(self) -> Path:
        """Where the report goes."""
        return Path(self.report) if self.report else self.folder / "report"


def read_proof_config(path: Path | None, overrides: Sequence[str]) -> ProofConfig:
    """Read the settings; those of the preset come first.

    Args:
        path: the JSON file, or None.
        overrides: "key=value" each.

    Returns:
        The settings.

    Raises:
        ConfigError: naming every mistake.
    """
    record = read_record(path, overrides)
    preset = record.get("preset", "cpu")
    if preset not in PRESETS:
        raise ConfigError(f"The preset is {preset!r}; choose one of {', '.join(PRESETS)}.")
    return build_config(ProofConfig, {**PRESETS[preset], **record})
