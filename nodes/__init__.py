"""The nodes of this pack, in menu order."""

from typing_extensions import override

from .comfy_adapter import folders
from .edit import (
    DualCFGModel,
    DualCFGSampler,
    InstructConditioning,
    InstructDecode,
    InstructEdit,
    InstructGuider,
)
from .load import LoadInstructPix2Pix
from .schema import ComfyExtension, io

NODES: list[type[io.ComfyNode]] = [
    LoadInstructPix2Pix,
    InstructEdit,
    InstructConditioning,
    InstructGuider,
    DualCFGSampler,
    DualCFGModel,
    InstructDecode,
]


class InstructPix2PixExtension(ComfyExtension):
    """The extension that the host asks for its nodes."""

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        folders.register_model_folder()
        return list(NODES)
