"""`ip2p export MODEL`: one file or a diffusers folder, in another number format; and any model made an editor.

With --onto OTHER --minus BASE the difference of an editor to the model it was trained from is added to another model of
the same family: OTHER + (MODEL - BASE).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..ip2p_core.checkpoint import ModelConfig, ModelParts, read_checkpoint, require_editor, widened, write_checkpoint
from ..ip2p_core.errors import ConfigError, ModelMismatch, OutputExists
from .argument_parser import ArgumentParser
from .diffusers_folder import write_folder
from .edit_models import resolve_model
from .training.export import EXPORT_DTYPES


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `ip2p export`."""
    parser = ArgumentParser(
        prog="ip2p export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="an editor or generator, by name inside the model folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="a .safetensors file, or a folder for diffusers"
    )
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model folder (default: models)")
    parser.add_argument("--precision", choices=EXPORT_DTYPES, default="fp16", help="number format (default: fp16)")
    parser.add_argument("--onto", metavar="OTHER", help="a text-to-image model that shall edit as well")
    parser.add_argument("--minus", metavar="BASE", help="the model that MODEL was trained from; with --onto")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.parse_args(argv)
    if bool(options.onto) != bool(options.minus):
        raise ConfigError("--onto and --minus belong together: OTHER + (MODEL - BASE). Give both or neither.")
    if options.output.exists() and not options.overwrite:
        raise OutputExists(f"{options.output} is there already. Choose another name, or add --overwrite.")
    parts, config = _open(options.model, options.models)
    if options.onto:
        require_editor(config)
        parts, config = with_difference(
            (parts, config), _open(options.minus, options.models), _open(options.onto, options.models)
        )
    dtype = EXPORT_DTYPES[options.precision]
    if options.output.suffix == ".safetensors":
        write_checkpoint(options.output, parts.unet, parts.vae, parts.text, config, dtype, text_2=parts.text_2)
    else:
        write_folder(options.output, parts, config, dtype)
    print(f"wrote {options.output.resolve()}")  # noqa: T201
    return 0


def _open(name: str, models: Path) -> tuple[ModelParts, ModelConfig]:
    raw = read_checkpoint(resolve_model(name, models))
    return raw.parts(), raw.config


def with_difference(
    editor: tuple[ModelParts, ModelConfig],
    base: tuple[ModelParts, ModelConfig],
    other: tuple[ModelParts, ModelConfig],
) -> tuple[ModelParts, ModelConfig]:
    """Add what an editor has learnt to another model of its family.

    Args:
        editor: weights and description of an 8-channel model.
        base: of the model that it was trained from.
        other: of the model that shall edit as well.

    Returns:
        Weights and description: other + (editor - base), in float32; autoencoder and text encoders are the other's.

    Raises:
        ModelMismatch: if weights differ in number or shape, or the models predict different things.
    """
    trained, trained_config = editor
    widened(base[0], base[1])
    config = widened(other[0], other[1])
    if config.prediction_type != trained_config.prediction_type:
        raise ModelMismatch(
            f"The other model predicts {config.prediction_type}, the editor {trained_config.prediction_type}. Choose models "
            "that predict the same."
        )
    added = {}
    for name, value in trained.unet.items():
        shapes = [parts.unet[name].shape if name in parts.unet else None for parts in (base[0], other[0])]
        if any(shape != value.shape for shape in shapes):
            found = " and ".join("none" if shape is None else str(list(shape)) for shape in shapes)
            raise ModelMismatch(
                f"The weight {name!r} has the shape {list(value.shape)} in the editor, but {found} in base and other model. "
                "All three must be of one family; choose others."
            )
        added[name] = other[0].unet[name].float() + (value.float() - base[0].unet[name].float())
    described = replace(
        config,
        default_text_guidance_scale=trained_config.default_text_guidance_scale,
        default_image_guidance_scale=trained_config.default_image_guidance_scale,
        recipe=f"difference added: {other[1].base} + ({trained_config.base} - {base[1].base})",
    )
    return other[0]._replace(unet=added), described
