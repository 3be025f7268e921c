"""Datasets of pairs on the disk: saving pairs, and loading them."""

import itertools

from typing_extensions import override

from ..ip2p_core.errors import Ip2pError
from ..ip2p_core.pair_record import SPLITS
from .comfy_adapter import folders
from .pair_steps import show
from .schema import CATEGORY, PAIR_ALIASES, Dataset, Pairs, io, schema, socket, ui

ALL = "all"


class SavePairs(io.ComfyNode):
    """Pairs to a dataset folder."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SavePairs",
            display_name="Save Pairs",
            category=CATEGORY,
            description=(
                "Adds pairs to a dataset in output/ip2p_datasets. Pairs that are there already are left as they are, so "
                "a workflow can run again. The folder opens with Hugging Face datasets and with the command ip2p dataset."
            ),
            search_aliases=[*PAIR_ALIASES, "save dataset"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                Pairs.Input("pairs", tooltip="From Prompt-to-Prompt Pair or CLIP Directional Filter."),
                socket(
                    io.String.Input,
                    "dataset_name",
                    default="my_pairs",
                    tooltip="Name of the folder in output/ip2p_datasets; made if it is not there.",
                ),
            ],
            outputs=[Dataset.Output(display_name="dataset"), io.String.Output(display_name="path")],
        )

    @classmethod
    @override
    def execute(cls, pairs, dataset_name) -> io.NodeOutput:
        from ..ip2p_core.pair_store import PairStore, PairWriter  # needs pyarrow, which editing does not

        folder = folders.resolve_dataset(dataset_name[0])
        with PairWriter(folder) as writer:
            added = sum(writer.add_record(record) for record in itertools.chain.from_iterable(pairs))
        num_pairs = sum(len(part) for part in pairs)
        text = f"{added} of {num_pairs} pairs added to {dataset_name[0]}; it holds {PairStore(folder).num_stored}."
        return io.NodeOutput(str(folder), str(folder), ui=ui.PreviewText(text))


class LoadPairs(io.ComfyNode):
    """Pairs from a dataset folder."""

    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LoadPairs",
            display_name="Load Pairs",
            category=CATEGORY,
            description=(
                "Opens a dataset of pairs in output/ip2p_datasets. Pairs rejected by hand are left out. The pictures stay "
                "on the disk until they are needed."
            ),
            search_aliases=[*PAIR_ALIASES, "load dataset"],
            inputs=[
                socket(
                    io.String.Input,
                    "dataset_name",
                    default="my_pairs",
                    tooltip="Name of the folder in output/ip2p_datasets.",
                ),
                socket(
                    io.Combo.Input,
                    "split",
                    options=[ALL, *SPLITS],
                    default=ALL,
                    tooltip="train holds 90 % of the prompts, val and test 5 % each; a prompt never changes its split.",
                ),
                socket(
                    io.Int.Input,
                    "count",
                    default=0,
                    min=0,
                    max=100_000_000,
                    tooltip="How many pairs to read at most. 0 reads all.",
                ),
                socket(
                    io.Int.Input,
                    "num_shown",
                    default=16,
                    min=1,
                    max=100_000,
                    tooltip="How many pairs come out as images. 'pairs' holds all of them.",
                ),
            ],
            outputs=[
                Pairs.Output(display_name="pairs"),
                Dataset.Output(display_name="dataset"),
                io.String.Output(display_name="path"),
                io.Image.Output(display_name="original"),
                io.Image.Output(display_name="edited"),
            ],
        )

    @classmethod
    def validate_inputs(cls, dataset_name: str | None = None) -> bool | str:
        """Say in one sentence why a dataset cannot be opened; a linked name is checked when it is known."""
        try:
            if dataset_name is not None:
                folders.resolve_dataset(dataset_name)
        except Ip2pError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, dataset_name: str, **_options):
        """Read again when the dataset changed."""
        return folders.stamp(folders.resolve_dataset(dataset_name) / "manifest.json") if dataset_name else ()

    @classmethod
    @override
    def execute(cls, dataset_name: str, split: str, count: int, num_shown: int) -> io.NodeOutput:
        from ..ip2p_core.pair_store import PairStore

        folder = folders.resolve_dataset(dataset_name)
        records = PairStore(folder).records(None if split == ALL else split)
        pairs = tuple(itertools.islice(records, count or None))
        return io.NodeOutput(pairs, str(folder), str(folder), *show(pairs, num_shown))
