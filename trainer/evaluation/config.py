"""The settings of `ip2p evaluate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple

from ...ip2p_core.config_file import too_low
from ...ip2p_core.errors import ConfigError
from ...ip2p_core.picture_metrics import Masking
from ...ip2p_core.schedule import SCHEDULERS
from ..edit_files import slug

Kind = Literal["instruct", "sdedit", "text2live", "folder", "copy"]
SWEPT = ("text_scale", "image_scale", "strength", "steps")
"""What a system may be swept over, the innermost last but for the steps."""


class Setting(NamedTuple):
    """One choice of what a system is swept over; None where the system has no such thing or keeps the model's own value."""

    text_scale: float | None = None
    image_scale: float | None = None
    strength: float | None = None
    steps: int | None = None

    def named(self) -> dict[str, float]:
        """What is set."""
        return {name: value for name, value in zip(self._fields, self, strict=True) if value is not None}

    @property
    def slug(self) -> str:
        """A name for files."""
        return "-".join(f"{name.replace('_scale', '')}{value:g}" for name, value in self.named().items()) or "own"


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """One system that is measured.

    Attributes:
        name: in the report; different for every system.
        kind: "instruct" (an editor), "sdedit" (a text-to-image model on the noised picture), "text2live", "folder" (pictures
            made elsewhere, named as the examples) or "copy" (the picture as it is: what doing nothing scores).
        model: by name inside `models`; of "instruct" the embedded editor by default, of "sdedit" the embedded generator.
        vae: another autoencoder, by name; empty for the model's own.
        text_scales: text guidance scales; empty for the model's own, as with the following.
        image_scales: image guidance scales ("instruct").
        strengths: shares of the noise levels ("sdedit").
        steps: sampling steps, or those of the optimiser ("text2live").
        sampler: empty for the model's own.
        scheduler: the same.
        resolution: longer side in pixels at which the model works; 0 for the model's own.
        folder: of the pictures ("folder").
    """

    name: str
    kind: Kind = "instruct"
    model: str = ""
    vae: str = ""
    text_scales: list[float] = field(default_factory=list)
    image_scales: list[float] = field(default_factory=list)
    strengths: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    sampler: str = ""
    scheduler: str = ""
    resolution: int = 0
    folder: str = ""

    def __post_init__(self) -> None:
        uses = {
            "instruct": {"text_scales", "image_scales", "steps"},
            "sdedit": {"text_scales", "strengths", "steps"},
            "text2live": {"steps"},
        }.get(self.kind, set())
        lists = ("text_scales", "image_scales", "strengths", "steps")
        mistakes = [
            f"The system {self.name!r} is of the kind {self.kind!r}, which has no {name}. Take that out."
            for name in lists
            if getattr(self, name) and name not in uses
        ]
        if not self.name.strip():
            mistakes.append("A system has an empty name. Give every system a name of its own.")
        if self.kind == "folder" and not self.folder:
            mistakes.append(f"The system {self.name!r} is of the kind 'folder' and names none. Set its folder.")
        if not all(0 < one <= 1 for one in self.strengths):
            mistakes.append(f"The strengths of {self.name!r} are {self.strengths}; each must be above 0 and at most 1.")
        if not all(one >= 1 for one in self.steps):
            mistakes.append(f"The steps of {self.name!r} are {self.steps}; each must be at least 1.")
        if self.scheduler and self.scheduler not in SCHEDULERS:
            mistakes.append(
                f"{self.name!r} has the scheduler {self.scheduler!r}; choose one of {', '.join(SCHEDULERS)}."
            )
        if mistakes:
            raise ConfigError(*mistakes)

    def settings(self) -> list[Setting]:
        """List every choice of the sweep."""
        lists: list[list[Any]] = [self.text_scales, self.image_scales, self.strengths, self.steps]
        return [Setting(*chosen) for chosen in product(*(one or [None] for one in lists))]

    @property
    def slug(self) -> str:
        """A name for files."""
        return slug(self.name)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of a run, as the JSON file names them.

    Attributes:
        examples: a JSONL file with image, instruction, and where there are any caption, edited_caption, target, mask, edit_type, id (files
            beside it); or a dataset of pairs; or the folder of MagicBrush's test set, or of PIE-Bench.
        output: run folder; index.html appears there.
        layout: "auto" finds out which of these it is; "jsonl", "dataset", "magicbrush", "pie_bench".
        split: of a dataset; "all" for every pair.
        count: at most so many examples; 0 for all.
        systems: what is measured, see SystemConfig; the embedded editor by default.
        seeds: each example is edited with each; example i has seed + i.
        scorer: open_clip weights of the CLIP scores, by name inside `models`; empty for none.
        architecture: open_clip's name of its architecture; empty where the file says it.
        clip_preprocessing: "published_code" squeezes pictures as the paper's code does; "clip" cuts out the middle as CLIP's own
            program, and MagicBrush's, do.
        dino: folder of a transformers vision model (facebook/dino-vits16); empty for none.
        lpips: network of LPIPS, or "off".
        masking: "region" measures the pixels of the part alone; "multiply" as PIE-Bench does.
        judge: name of a vision model at an OpenAI-compatible server that judges edits; empty for none.
        base_url: of that server; empty for OPENAI_BASE_URL. The key is OPENAI_API_KEY, nowhere else.
        concurrency: requests at a time.
        models: folder of the models.
        batch_size: pictures that are edited together.
        device: "auto" or as torch names it.
        dtype: "auto", "float32", "float16" or "bfloat16".
        shown: examples in the page and in the pictures.
    """

    examples: str
    output: str
    layout: Literal["auto", "jsonl", "dataset", "magicbrush", "pie_bench"] = "auto"
    split: Literal["all", "train", "val", "test"] = "test"
    count: int = 0
    systems: list[SystemConfig] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    scorer: str = "clip"
    architecture: str = ""
    clip_preprocessing: Literal["published_code", "clip"] = "published_code"
    dino: str = ""
    lpips: Literal["off", "alex", "vgg", "squeeze"] = "off"
    masking: Masking = "region"
    judge: str = ""
    base_url: str = ""
    concurrency: int = 8
    models: str = "models"
    batch_size: int = 8
    device: str = "auto"
    dtype: str = "auto"
    shown: int = 8

    def __post_init__(self) -> None:
        mistakes = too_low(self, {"count": 0, "batch_size": 1, "shown": 0, "concurrency": 1})
        if not self.seeds:
            mistakes.append("There are no seeds. Give at least one, as [0].")
        names = [one.slug for one in self.system_configs()]
        mistakes += [
            f"Two systems are called {name!r}, up to signs. Give every system a name of its own."
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        if mistakes:
            raise ConfigError(*mistakes)

    def system_configs(self) -> list[SystemConfig]:
        """List the systems; the embedded editor where there are none."""
        return self.systems or [SystemConfig(name="embedded editor")]


def identity_of(system: SystemConfig, digest: str) -> dict[str, Any]:
    """Say what decides how the pictures of a system come out; lists may grow from run to run."""
    swept = {"text_scales", "image_scales", "strengths", "steps"}
    return {"model_sha256": digest} | {n: v for n, v in asdict(system).items() if n not in swept and n != "name"}
