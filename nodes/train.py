"""Training an editor from the canvas: the same program as `ip2p train`, in a process of its own."""

import json
from pathlib import Path

from typing_extensions import override

from ..ip2p_core.errors import ConfigError, Ip2pError
from ..ip2p_core.train_job import PRESETS
from .comfy_adapter import folders, training
from .schema import CATEGORY, Dataset, io, schema, socket, ui

WAIT, GO_ON, STOP = "wait for the checkpoint", "go on in the background", "stop and save"
_SIZES = (("steps", 2000, 1, 10_000_000), ("batch_size", 16, 1, 65_536), ("micro_batch_size", 4, 1, 4096))
_TIPS = {
    "steps": "Optimizer steps of the whole run.",
    "batch_size": "Pairs in one optimizer step; a multiple of micro_batch_size. The paper took 1024.",
    "micro_batch_size": "Pairs that go through the network at once. Lower it when memory runs out.",
}


class TrainInstructPix2Pix(io.ComfyNode):
    """A dataset and a base model to a checkpoint that edits by instruction."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="TrainInstructPix2Pix",
            display_name="Train InstructPix2Pix",
            category=CATEGORY,
            description=(
                "Fine-tunes a model on a dataset of pairs, in a process of its own: models are unloaded first, progress "
                "and grids of held-out pairs show here, and Cancel saves and ends. Queue it again to go on. The "
                "checkpoint lands in models/ip2p; link its name into Load InstructPix2Pix."
            ),
            search_aliases=["ip2p train", "train instructpix2pix", "fine-tune", "lora"],
            is_output_node=True,
            inputs=[
                Dataset.Input("dataset", tooltip="From Save Pairs or Load Pairs."),
                socket(
                    io.Combo.Input,
                    "base_model",
                    options=folders.model_names(),
                    tooltip="A text-to-image model, which gets four more input channels, or an editor to go on with.",
                ),
                socket(
                    io.String.Input,
                    "checkpoint_name",
                    default="my_editor",
                    tooltip="Name of the file in models/ip2p, and of the run in output/ip2p_runs.",
                ),
                socket(
                    io.Combo.Input,
                    "preset",
                    options=list(PRESETS),
                    default="finetune",
                    tooltip=(
                        "paper: the recipe of the paper. finetune: shorter. lora: small adapters, little memory. 24gb: the "
                        "paper's on one card. embedded: for this pack's small models."
                    ),
                ),
                *[
                    socket(io.Int.Input, name, default=default, min=low, max=high, tooltip=_TIPS[name])
                    for name, default, low, high in _SIZES
                ],
                socket(
                    io.Int.Input,
                    "resolution",
                    default=256,
                    min=32,
                    max=2048,
                    step=8,
                    tooltip="Side of the crops in pixels. The paper trained at 256 and edited at 512.",
                ),
                socket(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Decides order, crops, noise. The same seed gives the same checkpoint.",
                ),
                socket(
                    io.Combo.Input,
                    "run",
                    options=[WAIT, GO_ON, STOP],
                    default=WAIT,
                    tooltip=(
                        "Wait, so that the next nodes get the checkpoint; or return at once while the training goes on, even "
                        "when the browser is closed; or stop a run of this name that goes on."
                    ),
                ),
                socket(
                    io.String.Input,
                    "more_settings",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip='Further settings of ip2p train as JSON, for example {"learning_rate": 5e-5, "min_snr_gamma": 5}.',
                ),
            ],
            outputs=[io.String.Output(display_name="checkpoint_name")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, base_model: str | None = None, checkpoint_name: str | None = None) -> bool | str:
        """Say in one sentence what cannot be trained; linked names are checked when they are known."""
        try:
            if base_model is not None:
                folders.resolve_model(base_model)
            if checkpoint_name is not None:
                training.run_folder(checkpoint_name)
        except Ip2pError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, dataset: str | None = None, checkpoint_name: str = "", **_options):
        """Run again when the dataset changed, or the checkpoint is gone."""
        data = folders.stamp(Path(dataset) / "manifest.json") if dataset else ()
        return data, folders.fingerprint(f"{checkpoint_name}.safetensors")

    @classmethod
    @override
    def execute(
        cls, dataset: str, base_model: str, checkpoint_name: str, run: str, more_settings: str = "", **sizes
    ) -> io.NodeOutput:
        config = training.make_config(dataset, base_model, checkpoint_name, {**sizes, **_parse(more_settings)})
        name = f"{config.name}.safetensors"
        if run == STOP:
            was_running = training.stop(Path(config.output))
            text = "The training was stopped and saved." if was_running else "No training of this name goes on here."
            return io.NodeOutput(name, ui=ui.PreviewText(text))
        process = training.start(config)
        if run == GO_ON:
            text = f"The training goes on in the background; its log and grids are in {config.output}."
            return io.NodeOutput(name, ui=ui.PreviewText(text))
        lines: list[str] = []
        training.watch(config, process, lines.append)
        return io.NodeOutput(name, ui=ui.PreviewText("\n".join(lines[-3:])))


def _parse(text: str) -> dict:
    if not text.strip():
        return {}
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ConfigError(f'more_settings is not JSON ({error}). Write {{"name": value}}.') from None
    if not isinstance(settings, dict):
        raise ConfigError('more_settings is no JSON object. Write {"name": value}.')
    return settings
