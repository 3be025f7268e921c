"""CLIP scorers in the host: found in its model folders, and moved on and off the GPU by its memory management."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths

from ...ip2p_core.checkpoint import embedded_model_path
from ...ip2p_core.clip_scorer import CLIPScorer
from ...ip2p_core.errors import CheckpointError
from . import folders

EMBEDDED_CLIP = "embedded: clip"
KINDS = (folders.MODEL_FOLDER, "clip_vision", "text_encoders")
FILE_TYPES = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class HostScorer:
    """A scorer and the host's handle of its weights."""

    scorer: CLIPScorer
    patcher: comfy.model_patcher.ModelPatcher

    def on_device(self) -> CLIPScorer:
        """Return the scorer with its weights where the host computes."""
        comfy.model_management.load_models_gpu([self.patcher])
        self.scorer.move_to(self.patcher.load_device)
        return self.scorer


def scorer_names() -> list[str]:
    """List the files that may be open_clip models; which are shows when one is opened."""
    names = [EMBEDDED_CLIP] if _embedded() else []
    for kind in KINDS:
        if kind in folder_paths.folder_names_and_paths:
            found = folder_paths.get_filename_list(kind)
            names += [name for name in found if Path(name).suffix.lower() in FILE_TYPES]
    return list(dict.fromkeys(names))


def _embedded() -> Path | None:
    try:
        return embedded_model_path("clip")
    except CheckpointError:
        return None


def resolve_scorer(name: str) -> Path:
    """Find the file of a scorer.

    Raises:
        CheckpointError: if the name points outside the model folders, or nothing is there.
    """
    if name == EMBEDDED_CLIP:
        return embedded_model_path("clip")
    if not folders.is_outside(name or ""):
        for kind in KINDS:
            path = folder_paths.get_full_path(kind, name) if kind in folder_paths.folder_names_and_paths else None
            if path is not None:
                return Path(path)
    raise CheckpointError(
        f'There is no CLIP model "{name}" in models/{", models/".join(KINDS)}. Put an open_clip file there, '
        "for instance ViT-L-14 of OpenAI."
    )


def load_scorer(name: str, architecture: str) -> HostScorer:
    """Open a scorer on the offload device."""
    scorer = CLIPScorer.from_file(resolve_scorer(name), architecture)
    patcher = comfy.model_patcher.ModelPatcher(
        scorer.model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    return HostScorer(scorer, patcher)


class PairProgress:
    """The progress bar of scoring; a cancelled run stops after the batch."""

    def __init__(self, num_pairs: int) -> None:
        self._bar = comfy.utils.ProgressBar(num_pairs)
        self._num_pairs = num_pairs

    def __call__(self, num_done: int) -> None:
        """Show that so many pairs are scored."""
        self._bar.update_absolute(num_done, self._num_pairs)
        comfy.model_management.throw_exception_if_processing_interrupted()
