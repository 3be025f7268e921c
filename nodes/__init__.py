"""The nodes of this pack, in menu order."""

from typing_extensions import override

from .auto_guidance import AutoGuidance
from .comfy_adapter import folders
from .dataset import LoadPairs, SavePairs
from .edit import (
    DualCFGModel,
    DualCFGSampler,
    InstructConditioning,
    InstructDecode,
    InstructEdit,
    InstructGuider,
)
from .evaluate import GuidanceGrid, RelevanceMask
from .filter import CLIPDirectionalFilter, LoadCLIPScorer
from .load import LoadInstructPix2Pix
from .metrics import EditMetrics
from .pair import LoadTriplets, Prompt2PromptPair
from .schema import ComfyExtension, io
from .text import CaptionEdit, ParseTriplet
from .train import TrainInstructPix2Pix

NODES: list[type[io.ComfyNode]] = [
    LoadInstructPix2Pix,
    InstructEdit,
    InstructConditioning,
    InstructGuider,
    DualCFGSampler,
    DualCFGModel,
    InstructDecode,
    CaptionEdit,
    ParseTriplet,
    LoadTriplets,
    Prompt2PromptPair,
    LoadCLIPScorer,
    CLIPDirectionalFilter,
    SavePairs,
    LoadPairs,
    TrainInstructPix2Pix,
    GuidanceGrid,
    AutoGuidance,
    EditMetrics,
    RelevanceMask,
]


class InstructPix2PixExtension(ComfyExtension):
    """The extension that the host asks for its nodes."""

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        folders.register_model_folder()
        return list(NODES)
