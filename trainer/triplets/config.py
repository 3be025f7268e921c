"""The settings of `ip2p triplets`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ...ip2p_core.config_file import too_low
from ...ip2p_core.errors import ConfigError
from ...ip2p_core.instruction_writer import EDIT_TYPES, TEMPLATE
from ...ip2p_core.instruction_writer.grammar import RULES
from ...ip2p_core.instruction_writer.prompts import CAPTION_GAP
from .filters import Limits

DECIDES = frozenset(
    {
        "backend",
        "model",
        "adapter",
        "style",
        "template",
        "seed",
        "temperature",
        "top_p",
        "frequency_penalty",
        "max_tokens",
    }
    | {"num_tries", "edit_types"}
)
"""Settings that decide what is written; a run folder keeps to one choice. All others may change when it goes on."""


@dataclass(frozen=True, kw_only=True)
class TripletsConfig:
    """Settings of a run, as the JSON file names them.

    Attributes:
        captions: a .txt, .jsonl, .csv, .tsv or .parquet file, a dataset, or a folder of .parquet files or of pictures.
        output: run folder; triplets.jsonl appears there.
        column: of the captions; empty for the first of the usual names.
        url_column: of the addresses of pictures, of which each counts once; the same.
        first: captions that are passed over at the start.
        count: at most so many captions; 0 for all.
        backend: "grammar" (rules, offline), "server" (OpenAI-compatible) or "transformers" (in this process).
        model: name at the server, or folder of a transformers model.
        adapter: folder of a LoRA for the transformers model; empty for none.
        base_url: of the server, with its version; empty for OPENAI_BASE_URL. The key is OPENAI_API_KEY, nowhere else.
        style: "chat" asks by the template for JSON; "completion" is the published format for fine-tuned base models.
        template: of the question; it holds {caption}.
        see_pictures: the pictures of the captions are shown to the model (backend "server").
        structured: ask the server for answers of the JSON schema, where it can.
        seed: of the whole run.
        edits_per_caption: triplets of each caption.
        edit_types: that the grammar may write; empty for all.
        temperature: of sampling.
        top_p: of sampling.
        frequency_penalty: of sampling.
        max_tokens: longest answer.
        num_tries: how often a caption is asked until its answer is of use.
        concurrency: requests at a time.
        timeout: seconds that an answer may take.
        retries: further requests after each failure of the server or the network.
        pause: seconds before the first of them; each further pause is twice as long.
        batch_size: captions that the transformers model answers together.
        device: "auto", "cpu", "cuda", ...
        dtype: "auto", "float32", "float16" or "bfloat16" of the transformers model.
        near_captions: captions whose words are this similar (Jaccard) to an earlier one's are not asked; 0 asks all.
        max_words: longest text.
        min_changed: least part of the caption's words that an edit changes.
        max_changed: largest part.
        near_duplicate: triplets this similar to an earlier one are left out; 0 keeps them.
        max_per_instruction: at most so many triplets with one instruction; 0 for any number.
        quotas: {edit type: at most this share (up to 1) or number (above 1)}.
        impossible: counting, moving and camera edits, which Prompt-to-Prompt cannot make: "tag" or "drop" them.
        moderation: "words", "server", "module:function", or "off".
        output_format: fields of triplets.jsonl: "ours", or those of the published "human" or "generated" files.
        price_in: of a million tokens of questions, for the estimate.
        price_out: of a million tokens of answers.
        tokens_per_second: of the server, for the estimate.
        engine: "local", or "ray" for a cluster (the extra `cluster`).
        workers: actors of the cluster.
    """

    captions: str
    output: str
    column: str = ""
    url_column: str = ""
    first: int = 0
    count: int = 0
    backend: Literal["grammar", "server", "transformers"] = "grammar"
    model: str = ""
    adapter: str = ""
    base_url: str = ""
    style: Literal["chat", "completion"] = "chat"
    template: str = TEMPLATE
    see_pictures: bool = False
    structured: bool = True
    seed: int = 0
    edits_per_caption: int = 1
    edit_types: list[str] = field(default_factory=list)
    temperature: float = 0.7
    top_p: float = 1.0
    frequency_penalty: float = 0.1
    max_tokens: int = 256
    num_tries: int = 4
    concurrency: int = 32
    timeout: float = 120.0
    retries: int = 6
    pause: float = 1.0
    batch_size: int = 32
    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    near_captions: float = 0.0
    max_words: int = 60
    min_changed: float = 0.0
    max_changed: float = 0.9
    near_duplicate: float = 0.9
    max_per_instruction: int = 0
    quotas: dict[str, float] = field(default_factory=dict)
    impossible: Literal["tag", "drop"] = "tag"
    moderation: str = "words"
    output_format: Literal["ours", "human", "generated"] = "ours"
    price_in: float = 0.0
    price_out: float = 0.0
    tokens_per_second: float = 1000.0
    engine: Literal["local", "ray"] = "local"
    workers: int = 1

    def __post_init__(self) -> None:
        lowest = {"first": 0, "count": 0, "edits_per_caption": 1, "max_tokens": 1, "num_tries": 1, "concurrency": 1}
        lowest |= {
            "retries": 0,
            "batch_size": 1,
            "max_words": 1,
            "max_per_instruction": 0,
            "workers": 1,
            "temperature": 0,
        }
        mistakes = too_low(self, lowest)
        for name in ("near_captions", "near_duplicate", "min_changed", "max_changed", "top_p"):
            if not 0 <= getattr(self, name) <= 1:
                mistakes.append(f"{name} is {getattr(self, name):g}; it must be from 0 to 1.")
        mistakes += [
            f"quotas names {name!r}, which is no edit type; they are {', '.join(EDIT_TYPES)}."
            for name in self.quotas
            if name not in (*EDIT_TYPES, "other")
        ]
        mistakes += [
            f"edit_types names {name!r}: no edit type {name!r} is known to the grammar; choose among {', '.join(RULES)}."
            for name in self.edit_types
            if name not in RULES
        ]
        if self.backend != "grammar" and not self.model:
            mistakes.append(f"The backend {self.backend!r} needs a model: the name at the server, or a folder.")
        if self.see_pictures and self.backend != "server":
            mistakes.append(f"see_pictures needs the backend 'server', not {self.backend!r}.")
        if CAPTION_GAP not in self.template:
            mistakes.append(f"The template has no {CAPTION_GAP}. Put it where the caption of the picture belongs.")
        if self.engine == "ray" and self.backend == "grammar":
            mistakes.append("The engine 'ray' is for language models; the grammar is fast by itself. Choose 'local'.")
        if mistakes:
            raise ConfigError(*mistakes)

    def limits(self) -> Limits:
        """What a triplet must keep to."""
        return Limits(
            max_words=self.max_words,
            min_changed=self.min_changed,
            max_changed=self.max_changed,
            near_duplicate=self.near_duplicate,
            max_per_instruction=self.max_per_instruction,
            quotas=self.quotas,
            keep_impossible=self.impossible == "tag",
        )

    def identity(self) -> dict[str, Any]:
        """Say which settings decide what is written."""
        return {name: value for name, value in asdict(self).items() if name in DECIDES}
