"""Loading a model of this system: editors with 8 input channels, generators with 4."""

from typing_extensions import override

from ..ip2p_core.errors import Ip2pError
from .comfy_adapter import folders, loading
from .schema import CATEGORY, SEARCH_ALIASES, io, schema, socket

MODELS_OWN_VAE = "from the model"


class LoadInstructPix2Pix(io.ComfyNode):
    """MODEL, CLIP and VAE of an InstructPix2Pix model."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LoadInstructPix2Pix",
            display_name="Load InstructPix2Pix",
            category=CATEGORY,
            description=(
                "Loads a model that edits images by instruction: the embedded one, a checkpoint file, or a diffusers "
                "folder (SD1.5, SD2.x or SDXL with 8 input channels). Looks in models/ip2p, models/checkpoints and "
                "models/diffusers. Text-to-image models with 4 input channels load too, for the nodes that need them."
            ),
            search_aliases=[*SEARCH_ALIASES, "load instructpix2pix", "cosxl edit loader"],
            inputs=[
                socket(
                    io.Combo.Input,
                    "model_name",
                    options=folders.model_names(),
                    default=folders.EMBEDDED_EDITOR,
                    tooltip=(
                        "A file or diffusers folder in models/ip2p, models/checkpoints or models/diffusers. "
                        "'embedded: editor' is the small model that comes with this pack."
                    ),
                ),
                socket(
                    io.Combo.Input,
                    "vae_name",
                    options=[MODELS_OWN_VAE, *folders.vae_names()],
                    default=MODELS_OWN_VAE,
                    optional=True,
                    advanced=True,
                    tooltip="Another autoencoder from models/vae. 'from the model' uses the one inside the checkpoint.",
                ),
                socket(
                    io.String.Input,
                    "model_path",
                    optional=True,
                    force_input=True,
                    tooltip=(
                        "A model name or path as text, for instance from a training node; it takes the place of "
                        "model_name. It must lie inside the model folders."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None = None) -> bool | str:
        """Say in one sentence why a name cannot be loaded; a linked name or path is checked when it is known."""
        try:
            if model_name is not None:
                folders.resolve_model(model_name)
        except Ip2pError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_name: str, vae_name: str = MODELS_OWN_VAE, model_path: str | None = None):
        """Load again when the file behind a name changed."""
        return folders.fingerprint(model_path or model_name or ""), vae_name

    @classmethod
    @override
    def execute(cls, model_name: str, vae_name: str = MODELS_OWN_VAE, model_path: str | None = None) -> io.NodeOutput:
        path = folders.resolve_model(model_path or model_name)
        vae_path = None if vae_name == MODELS_OWN_VAE else folders.resolve_vae(vae_name)
        return io.NodeOutput(*loading.load(path, vae_path))
