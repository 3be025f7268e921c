"""The settings of `ip2p pairs`, and what they mean to core and samplers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..ip2p_core.config_file import too_low
from ..ip2p_core.cross_attention_edit import EditKind
from ..ip2p_core.errors import ConfigError
from ..ip2p_core.local_blend import LocalBlendSettings
from ..ip2p_core.pair_generation import PairMode, PairSettings, PaperTextSettings
from ..ip2p_core.prompt_alignment import Mapper
from ..ip2p_core.similarity import PRESETS, Thresholds
from .pair_sampler import PairSampling

HOW_TO_RUN = frozenset(
    {
        "triplets",
        "output",
        "models",
        "device",
        "malformed_lines",
        "save_seconds",
        "channels_last",
        "compile",
        "scorer_batch",
        "engine",
        "workers",
    }
)
"""Settings that do not decide how a pair comes out; they may change between the runs of one dataset."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Settings of a run, as the JSON file names them.

    Attributes:
        triplets: JSONL file of caption, instruction, edited_caption.
        output: folder of the dataset.
        generator: text-to-image model, by name inside `models`.
        scorer: open_clip weights, by name inside `models`.
        architecture: open_clip's name of the scorer's architecture; empty where the file says it.
        models: folder of the models.
        seed: of the whole run.
        num_samples: pairs per prompt before the filter.
        p_min: lowest share of the steps with shared attention.
        p_max: highest share.
        guidance_min: lowest text guidance scale.
        guidance_max: highest text guidance scale.
        edits_per_source: approximate: so many samples share their original, which saves up to half of the work.
        mode: "published_code" or "paper_text".
        edit_kind: of the mode "paper_text".
        mapper: of the mode "paper_text".
        self_replace: of the mode "paper_text".
        self_replace_of: of the mode "paper_text": other values of `self_replace` by the `edit_type` of the triplets; less where
            shapes change.
        max_self_tokens: of the mode "paper_text".
        word_weights: of the mode "paper_text".
        blend_words: of the mode "paper_text": words of the caption where the picture may change.
        blend_edited_words: of the mode "paper_text": the same of the edited caption.
        blend_threshold: of the mode "paper_text".
        blend_map_factor: of the mode "paper_text": latent cells per cell of the attention maps.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        steps: sampling steps.
        sampler: "euler", "euler_ancestral" or "dpmpp_2m".
        scheduler: spacing of the noise levels.
        preset: thresholds "paper", "published_code" or "custom".
        image_threshold: of "custom".
        caption_threshold: of "custom".
        directional_threshold: of "custom".
        keep: at most so many pairs of a prompt.
        batch_size: pairs that are sampled together.
        unit_samples: samples of a prompt that are remembered together; 0 is the batch size.
        stop_when_full: approximate: no more samples of a prompt once `keep` of them pass.
        give_up_after: approximate: no more samples of a prompt of which none passed among so many; 0 never gives up.
        reject_at: approximate: after this part of the steps, pairs whose predicted pictures miss a threshold by more than
            `reject_margin` are given up; 0 is off.
        reject_margin: how far they may miss it then.
        dtype: "auto", "float32", "float16" or "bfloat16".
        device: "auto" or as torch names it.
        channels_last: order of numbers that GPUs like.
        compile: compile the U-Net.
        scorer_batch: pictures that CLIP sees together.
        safety: "require" a safety classifier, or "off".
        safety_model: open_clip weights of the classifier, by name inside `models`; a real CLIP is needed.
        safety_architecture: open_clip's name of its architecture; empty where the file says it.
        safety_threshold: probability from which on a text or picture is unsafe.
        malformed_lines: "skip" or "raise".
        save_seconds: longest time between two saves of the dataset.
        engine: "local" for this machine, or "ray" for a cluster (the extra `cluster`); RAY_ADDRESS names it.
        workers: processes, or actors of the cluster, that sample; each loads the models, and takes a GPU of its own where
            there are several.
    """

    triplets: str
    output: str
    generator: str = "generator"
    scorer: str = "clip"
    architecture: str = ""
    models: str = "models"
    seed: int = 0
    num_samples: int = 100
    p_min: float = 0.1
    p_max: float = 0.9
    guidance_min: float = 7.5
    guidance_max: float = 15.0
    edits_per_source: int = 1
    mode: PairMode = "published_code"
    edit_kind: EditKind = "refine"
    mapper: Mapper = "aligned"
    self_replace: float = 0.4
    self_replace_of: dict[str, float] = field(default_factory=dict)
    max_self_tokens: int | None = 256
    word_weights: dict[str, float] = field(default_factory=dict)
    blend_words: list[str] = field(default_factory=list)
    blend_edited_words: list[str] = field(default_factory=list)
    blend_threshold: float = 0.3
    blend_map_factor: int = 4
    width: int = 512
    height: int = 512
    steps: int = 100
    sampler: str = "euler_ancestral"
    scheduler: str = "normal"
    preset: Literal["paper", "published_code", "custom"] = "paper"
    image_threshold: float = 0.75
    caption_threshold: float = 0.2
    directional_threshold: float = 0.2
    keep: int = 4
    batch_size: int = 8
    unit_samples: int = 0
    stop_when_full: bool = False
    give_up_after: int = 0
    reject_at: float = 0.0
    reject_margin: float = 0.1
    dtype: str = "auto"
    device: str = "auto"
    channels_last: bool = False
    compile: bool = False
    scorer_batch: int = 32
    safety: Literal["require", "off"] = "require"
    safety_model: str = ""
    safety_architecture: str = ""
    safety_threshold: float = 0.5
    malformed_lines: Literal["skip", "raise"] = "skip"
    save_seconds: float = 120.0
    engine: Literal["local", "ray"] = "local"
    workers: int = 1

    def __post_init__(self) -> None:
        lowest = {"keep": 1, "batch_size": 1, "steps": 1, "scorer_batch": 1, "workers": 1, "unit_samples": 0}
        mistakes = too_low(self, {**lowest, "give_up_after": 0})
        if not 0.0 <= self.reject_at < 1.0:
            mistakes.append(f"reject_at is {self.reject_at:g}; it must be at least 0 (off) and below 1.")
        if self.reject_at and (self.sampler not in ("euler", "euler_ancestral") or self.blend_words):
            mistakes.append(
                "reject_at needs the sampler euler or euler_ancestral, and no local blend. Switch one of them off."
            )
        if self.safety == "require" and not self.safety_model:
            mistakes.append(
                "There is no safety classifier: safety_model is empty. Name open_clip weights of a real CLIP, for instance "
                'ViT-L-14 of OpenAI, or switch the filter off with "safety": "off"; the dataset records that.'
            )
        for make in (self.pair_settings, self.thresholds):
            try:
                make()
            except ConfigError as error:
                mistakes.extend(error.mistakes)
        if mistakes:
            raise ConfigError(*mistakes)

    def pair_settings(self) -> PairSettings:
        """What is drawn and shared."""
        return PairSettings(
            num_samples=self.num_samples,
            p2p_range=(self.p_min, self.p_max),
            guidance_range=(self.guidance_min, self.guidance_max),
            mode=self.mode,
            edits_per_source=self.edits_per_source,
            paper_text=PaperTextSettings(
                kind=self.edit_kind,
                mapper=self.mapper,
                self_replace=self.self_replace,
                self_replace_of=tuple(sorted(self.self_replace_of.items())),
                max_self_tokens=self.max_self_tokens,
                word_weights=tuple(sorted(self.word_weights.items())),
                blend_words=(tuple(self.blend_words), tuple(self.blend_edited_words)),
                blend=LocalBlendSettings(threshold=self.blend_threshold, map_factor=self.blend_map_factor),
            ),
        )

    def sampling(self) -> PairSampling:
        """How a batch is sampled."""
        return PairSampling(
            width=self.width, height=self.height, steps=self.steps, sampler=self.sampler, scheduler=self.scheduler
        )

    def thresholds(self) -> Thresholds:
        """What a pair must reach."""
        if self.preset != "custom":
            return PRESETS[self.preset]
        return Thresholds(
            image=self.image_threshold, caption=self.caption_threshold, directional=self.directional_threshold
        )

    def loose_thresholds(self) -> Thresholds:
        """What a pair must reach part-way, with the margin."""
        strict = self.thresholds()
        values = {name: max(-1.0, value - self.reject_margin) for name, value in vars(strict).items()}
        return Thresholds(**values)

    @property
    def samples_per_unit(self) -> int:
        """Samples of a prompt that are made, and remembered, together."""
        return min(self.unit_samples or self.batch_size, self.num_samples)

    def identity(self, generator: Path, scorer: Path) -> dict[str, Any]:
        """Say what decides how the pairs come out: settings and models. A dataset is made with one identity.

        Args:
            generator: file or folder of the generator.
            scorer: file of the scorer.

        Returns:
            What JSON can express.
        """
        settings = {name: value for name, value in asdict(self).items() if name not in HOW_TO_RUN}
        if not self.self_replace_of:
            del settings["self_replace_of"]  # datasets that were begun before there was this setting go on
        return {**settings, "generator_file": _digest(generator), "scorer_file": _digest(scorer)}


def _digest(path: Path) -> str:
    """Hash the first and the last MiB of every file, and their sizes: enough to tell models apart, in no time."""
    digest = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]:
        size, part = file.stat().st_size, 2**20
        with file.open("rb") as opened:
            digest.update(f"{size}:".encode() + opened.read(part))
            opened.seek(max(0, size - part))
            digest.update(opened.read(part))
    return digest.hexdigest()[:16]
