"""InstructPix2Pix for ComfyUI: the host's entry point.

Nothing is imported at module level, so that the trainer and the tests never need a host.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the extension with the nodes of this pack."""
    from .nodes import InstructPix2PixExtension

    return InstructPix2PixExtension()
