"""The settings of a training: the contract between whoever starts it and the program.

Numbers of the preset "paper": arXiv:2211.09800, sections 3.2 and appendix A.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .config_file import build_config, read_record, too_low
from .errors import ConfigError

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "finetune": {"steps": 2000, "batch_size": 64, "micro_batch_size": 16, "learning_rate": 5e-5, "ema_decay": 0.999},
    "lora": {
        "steps": 2000,
        "batch_size": 32,
        "micro_batch_size": 8,
        "lora_rank": 64,
        "ema_decay": 0.999,
        "gradient_checkpointing": True,
    },
    "24gb": {
        "micro_batch_size": 16,
        "optimizer": "adamw8bit",
        "gradient_checkpointing": True,
        "precision": "bf16",
    },
    "embedded": {
        "steps": 14_000,
        "batch_size": 16,
        "micro_batch_size": 16,
        "learning_rate": 1.2e-3,
        "lr_schedule": "cosine",
        "lr_warmup_steps": 200,
        "beta_2": 0.99,
        "ema_decay": 0.999,
        "resolution": 64,
        "resize_range": 1.0,
        "flip": 0.0,
        "cache_views": 1,
        "train_text_encoder": True,
        "start_share": 0.6,
        "change_share": 0.25,
        "cuda_graphs": True,
    },
}
"""What differs from the defaults, which are the paper's."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training, as the JSON file names them.

    Attributes:
        dataset: folder of the dataset.
        base: model to start from, by name inside `models`: 4 channels are widened, 8 are gone on with.
        output: run folder.
        name: of the checkpoint that comes out.
        preset: a key of PRESETS; other settings of the file win over it.
        models: folder of the models.
        split: of the dataset, that is trained on.
        wordings: JSON file {instruction: [other wordings]}; each time a pair is seen, its instruction or one of them is
            drawn, all equally likely; empty for none.
        seed: of the whole run.
        steps: optimizer steps.
        batch_size: pairs in one optimizer step, over all processes.
        micro_batch_size: pairs in one forward; batch_size is a multiple of it times the number of processes.
        resolution: side of the crops in pixels.
        resize_range: a pair's shorter side becomes up to so many times the resolution before the crop.
        flip: probability of a mirrored pair.
        buckets: crop to the aspect ratio of each pair, at about resolution² pixels, instead of to a square.
        learning_rate: after the warm-up.
        lr_schedule: "constant", "linear" or "cosine" (both to 2 % of it).
        lr_warmup_steps: linear from 0.
        optimizer: "adamw" or "adamw8bit" (the package bitsandbytes).
        beta_2: of Adam.
        weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm; 0 is off.
        ema_decay: of the moving average of the weights that is exported; 0 is off.
        dropout: probability of each of image-only, text-only and both conditionings being dropped.
        min_snr_gamma: weigh the loss by min(SNR, gamma) / SNR (arXiv:2303.09556); 0 is off.
        start_share: share of the items that are noised as sampling starts, without a trace of the edited picture.
        change_share: share of the loss that goes to what the edit changes, however small; 0 is off.
        mask_share: share of the loss that goes to the masks of the dataset, where it has them; 0 is off.
        use_weights: weigh the loss by the column `weight` of the dataset, where it has one.
        train_text_encoder: train it along with the U-Net.
        lora_rank: train adapters of this rank, and conv_in in full; 0 trains everything.
        lora_targets: ends of the names of the layers that get adapters.
        precision: "fp32", "bf16", "fp16", or "fp64" for checks.
        gradient_checkpointing: less memory, a third more time.
        compile: compile the U-Net.
        cuda_graphs: on one GPU, where a step is one micro-batch, start all kernels of the network at once: for networks so
            small that Python is the limit.
        cache: "latents" encodes every pair once, before; "none" encodes it every time.
        cache_views: crops and flips of each pair that are encoded.
        cache_text: keep the embeddings of the instructions too, 118 kB each with SD1.5.
        damaged: pairs and shards that cannot be read: "raise" or "skip" them (counted).
        workers: processes that read data; 0 reads in the training's own.
        checkpoint_steps: steps between two checkpoints.
        keep_checkpoints: how many of the newest are kept.
        validation_steps: steps between two grids of held-out pairs; 0 is off.
        validation_pairs: pairs in a grid.
        scorer: open_clip weights for the similarities of held-out pairs, by name inside `models`; empty for none.
        scorer_architecture: open_clip's name of its architecture; empty where the file says it.
        model_folder: where the file goes that comes out; empty for the folder ip2p in `models`.
        lora_folder: where the file of the adapters goes; empty for the folder loras in `models`.
        export_precision: number format of the file that comes out: "fp16", "bf16" or "fp32".
        strategy: "ddp", or "fsdp" to divide weights and optimizer among the GPUs.
        device: "auto", "cpu" or "cuda".
    """

    dataset: str
    base: str
    output: str
    name: str = "instruct_pix2pix"
    preset: str = "paper"
    models: str = "models"
    split: str = "train"
    wordings: str = ""
    seed: int = 0
    steps: int = 10_000
    batch_size: int = 1024
    micro_batch_size: int = 32
    resolution: int = 256
    resize_range: float = 1.125
    flip: float = 0.5
    buckets: bool = False
    learning_rate: float = 1e-4
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    lr_warmup_steps: int = 0
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    beta_2: float = 0.999
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9999
    dropout: float = 0.05
    min_snr_gamma: float = 0.0
    start_share: float = 0.0
    change_share: float = 0.0
    mask_share: float = 0.0
    use_weights: bool = True
    train_text_encoder: bool = False
    lora_rank: int = 0
    lora_targets: list[str] = field(
        default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
    )
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    cache: Literal["latents", "none"] = "latents"
    cache_views: int = 4
    cache_text: bool = False
    damaged: Literal["raise", "skip"] = "raise"
    workers: int = 0
    checkpoint_steps: int = 500
    keep_checkpoints: int = 2
    validation_steps: int = 500
    validation_pairs: int = 4
    scorer: str = ""
    scorer_architecture: str = ""
    model_folder: str = ""
    lora_folder: str = ""
    export_precision: Literal["fp16", "bf16", "fp32"] = "fp16"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    device: str = "auto"

    def __post_init__(self) -> None:
        lowest = {"steps": 1, "batch_size": 1, "micro_batch_size": 1, "resolution": 8, "cache_views": 1, "workers": 0}
        lowest |= {"checkpoint_steps": 1, "keep_checkpoints": 1, "validation_steps": 0, "lora_rank": 0}
        lowest |= {"lr_warmup_steps": 0, "validation_pairs": 1}
        mistakes = too_low(self, lowest)
        if not 1 <= self.resize_range <= 4:
            mistakes.append(f"resize_range is {self.resize_range:g}; it must be from 1 to 4.")
        if self.batch_size % self.micro_batch_size:
            mistakes.append(
                f"batch_size is {self.batch_size}, which is no multiple of micro_batch_size, {self.micro_batch_size}."
            )
        for name, end in (
            ("flip", 1),
            ("start_share", 1),
            ("change_share", 1),
            ("mask_share", 1),
            ("dropout", 1 / 3),
            ("ema_decay", 1),
        ):
            if not 0 <= getattr(self, name) <= end:
                mistakes.append(f"{name} is {getattr(self, name):g}; it must be from 0 to {end:g}.")
        if not self.learning_rate > 0:
            mistakes.append(f"learning_rate is {self.learning_rate:g}; it must be above 0.")
        if self.train_text_encoder and (self.lora_rank or self.cache_text):
            mistakes.append(
                "train_text_encoder goes neither with lora_rank nor with cache_text. Switch one of them off."
            )
        if self.cuda_graphs and (self.compile or self.gradient_checkpointing):
            mistakes.append(
                "cuda_graphs goes neither with compile nor with gradient_checkpointing. Switch one of them off."
            )
        if mistakes:
            raise ConfigError(*mistakes)

    @property
    def resize(self) -> tuple[int, int]:
        """Smallest and largest shorter side in pixels before the crop."""
        return self.resolution, round(self.resolution * self.resize_range)

    def identity(self) -> dict[str, Any]:
        """Say which settings decide the weights; a run goes on only with the same ones."""
        return {name: value for name, value in asdict(self).items() if name not in HOW_TO_RUN}


HOW_TO_RUN = frozenset(
    {
        "dataset",
        "output",
        "name",
        "preset",
        "models",
        "wordings",
        "gradient_checkpointing",
        "compile",
        "cuda_graphs",
        "cache_text",
        "workers",
        "checkpoint_steps",
        "keep_checkpoints",
        "validation_steps",
        "validation_pairs",
        "scorer",
        "scorer_architecture",
        "model_folder",
        "lora_folder",
        "export_precision",
        "strategy",
        "device",
    }
)
"""Settings that do not decide the weights (but for rounding); they may change when a run goes on."""


def read_train_config(path: Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read the settings of a training.

    Args:
        path: the JSON file, or None for overrides alone.
        overrides: "key=value" each.

    Returns:
        The settings: the file's, over the preset's, over the paper's.

    Raises:
        ConfigError: naming every mistake.
    """
    return make_train_config(read_record(path, overrides))


def make_train_config(record: Mapping[str, Any]) -> TrainConfig:
    """Check settings and fill in those of the preset.

    Args:
        record: the settings.

    Returns:
        All settings.

    Raises:
        ConfigError: naming every mistake.
    """
    preset = record.get("preset", "paper")
    if preset not in PRESETS:
        raise ConfigError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    return build_config(TrainConfig, {**PRESETS[preset], **record})
