"""The systems that are measured: editors, baselines, pictures made elsewhere.

Shapes: B pictures, H W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.errors import ConfigError
from ...ip2p_core.guidance import GuidanceScales, GuidanceSettings
from ...ip2p_core.image_tensor import load_image
from ..baselines.sdedit import default_sdedit, sdedit
from ..baselines.text2live import Text2LiveSettings, text2live
from ..diffusers_adapter import load_editor, load_generator
from ..edit import Source, default_settings, edit_source, encode_source
from ..edit_backend import Editor
from ..edit_files import IMAGE_SUFFIXES
from ..edit_models import resolve_model
from ..edit_record import model_digest
from .config import EvaluateConfig, Setting, SystemConfig
from .examples import Example


class System(Protocol):
    """What edits a batch of pictures of one size."""

    needs_captions: bool

    def edit(self, images: Tensor, examples: Sequence[Example], setting: Setting, seed: int) -> Tensor:
        """Edit.

        Args:
            images: [B, H, W, 3] in [0, 1].
            examples: what to do with each.
            setting: one choice of the sweep.
            seed: of the first picture; picture i has seed + i.

        Returns:
            [B, H, W, 3] in [0, 1].
        """
        ...


@dataclass
class Instruct:
    """An editor of this project, or any InstructPix2Pix."""

    editor: Editor
    config: SystemConfig
    needs_captions: bool = False
    _encoded: tuple[Tensor, Source] | None = None

    def edit(self, images: Tensor, examples: Sequence[Example], setting: Setting, seed: int) -> Tensor:
        """Edit by instruction; pictures that come again are encoded once."""
        settings = default_settings(self.editor.config)
        scales = settings.guidance.scales
        chosen = GuidanceScales(
            text_guidance_scale=_or(setting.text_scale, scales.text_guidance_scale),
            image_guidance_scale=_or(setting.image_scale, scales.image_guidance_scale),
        )
        settings = replace(settings, guidance=GuidanceSettings(scales=chosen), **_changes(self.config, setting))
        if self._encoded is None or self._encoded[0] is not images:
            self._encoded = images, encode_source(self.editor, images, settings)
        instructions = [one.instruction for one in examples]
        return edit_source(self.editor, self._encoded[1], [instructions], settings, seed=seed).image


@dataclass
class SDEdit:
    """A text-to-image model on the noised picture."""

    model: Editor
    config: SystemConfig
    needs_captions: bool = True

    def edit(self, images: Tensor, examples: Sequence[Example], setting: Setting, seed: int) -> Tensor:
        """Sample again towards the edited captions."""
        settings = replace(default_sdedit(self.model.config), **_changes(self.config, setting))
        settings = replace(
            settings,
            strength=_or(setting.strength, settings.strength),
            text_guidance_scale=_or(setting.text_scale, settings.text_guidance_scale),
        )
        return sdedit(self.model, images, [one.edited_caption for one in examples], settings, seed=seed)


@dataclass
class Text2Live:
    """An edit layer for every picture, by CLIP."""

    scorer: CLIPScorer
    needs_captions: bool = True

    def edit(self, images: Tensor, examples: Sequence[Example], setting: Setting, seed: int) -> Tensor:
        """Optimise a layer for each picture."""
        base = Text2LiveSettings.small() if self.scorer.image_size[0] <= 64 else Text2LiveSettings()
        settings = replace(base, steps=setting.steps or base.steps)
        return torch.stack(
            [
                text2live(self.scorer, image, one.caption, one.edited_caption, settings, seed=seed + i).image
                for i, (image, one) in enumerate(zip(images, examples, strict=True))
            ]
        )


@dataclass
class Copy:
    """The picture as it is."""

    needs_captions: bool = False

    def edit(self, images: Tensor, examples: Sequence[Example], setting: Setting, seed: int) -> Tensor:  # noqa: ARG002
        """Do nothing."""
        return images


@dataclass
class Folder:
    """Pictures that were made elsewhere."""

    folder: Path
    needs_captions: bool = False
    _names: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise ConfigError(f"There is no folder {self.folder} of pictures. Name the folder of the system's results.")
        self._names = {one.stem: one for one in self.folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES}

    def edit(self, images: Tensor, examples: Sequence[Example], setting: Setting, seed: int) -> Tensor:  # noqa: ARG002
        """Read the pictures; they are named by the keys of the examples, or by the keys without their last part."""
        found = []
        for one, image in zip(examples, images, strict=True):
            path = self._names.get(one.key) or self._names.get(one.key.rsplit("-", 1)[0])
            if path is None:
                raise ConfigError(f"{self.folder} holds no picture of the example {one.key}. Name it {one.key}.png.")
            pixels = load_image(path).pixels
            if pixels.shape != image.shape:
                raise ConfigError(
                    f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, its original {image.shape[1]}x{image.shape[0]}; make "
                    "them equal."
                )
            found.append(pixels)
        return torch.stack(found)


def load_system(system: SystemConfig, config: EvaluateConfig, scorer: CLIPScorer | None) -> System:
    """Open a system.

    Args:
        system: its settings.
        config: of the run: folder of the models, device, number format.
        scorer: CLIP, for Text2LIVE.

    Returns:
        The system, with its model loaded.

    Raises:
        ConfigError: if it needs a scorer and there is none, or a folder that is not there.
    """
    models: dict[str, Any] = {
        "models_dir": Path(config.models),
        "vae": system.vae or None,
        "dtype": config.dtype,
        "device": config.device,
    }
    if system.kind == "instruct":
        return Instruct(load_editor(model_name(system), **models), system)
    if system.kind == "sdedit":
        return SDEdit(load_generator(model_name(system), **models), system)
    if system.kind == "text2live":
        if scorer is None:
            raise ConfigError(f"The system {system.name!r} is Text2LIVE, which needs a scorer. Set scorer.")
        return Text2Live(scorer)
    return Folder(Path(system.folder)) if system.kind == "folder" else Copy()


def model_name(system: SystemConfig) -> str:
    """Name of the model; embedded ones where none is named."""
    return system.model or {"instruct": "editor", "sdedit": "generator"}.get(system.kind, "")


def digest_of(system: SystemConfig, config: EvaluateConfig) -> str:
    """SHA-256 of a system's model; empty where it has none of its own."""
    name = model_name(system)
    return model_digest(resolve_model(name, Path(config.models))) if name else ""


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _changes(config: SystemConfig, setting: Setting) -> dict[str, Any]:
    """What a system's own settings change in those of its model."""
    changes = {
        "steps": setting.steps,
        "sampler": config.sampler,
        "scheduler": config.scheduler,
        "working_resolution": config.resolution,
    }
    return {name: value for name, value in changes.items() if value}
