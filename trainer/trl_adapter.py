"""Fine-tuning of language models by trl: the only file that knows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..ip2p_core.errors import ConfigError

INSTALL = "pip install 'instruct-pix2pix[text]'"


class Example(NamedTuple):
    """What the model gets, and what it shall answer; only the answer counts in the loss."""

    prompt: str
    completion: str


class SftSettings(NamedTuple):
    """How a language model is fine-tuned."""

    epochs: float
    learning_rate: float
    batch_size: int
    accumulation: int
    max_length: int
    lora_rank: int
    seed: int
    save_steps: int
    is_chat: bool
    device: str


def finetune_model(
    base: Path,
    output: Path,
    training: Sequence[Example],
    held_out: Sequence[Example],
    settings: SftSettings,
    report: Callable[[str], None],
) -> dict[str, float]:
    """Fine-tune a model; goes on from the newest checkpoint in the folder.

    Args:
        base: folder of a transformers model.
        output: gets the model, or with a LoRA its adapter, and the tokenizer.
        training: examples to learn.
        held_out: examples to measure the loss on.
        settings: how.
        report: gets a line now and then.

    Returns:
        Loss per token of the held-out answers, "before" and "after".

    Raises:
        ConfigError: if trl is missing.
    """
    try:
        import trl
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
        from transformers.trainer_utils import get_last_checkpoint
    except ImportError as error:
        raise ConfigError(f"Fine-tuning needs trl, datasets and peft ({error}). {INSTALL}.") from None

    class Lines(TrainerCallback):  # type: ignore[misc] # transformers carries no types here
        def on_log(
            self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_more: Any
        ) -> None:
            if logs and "loss" in logs:
                report(f"step {state.global_step} of {state.max_steps}, loss {float(logs['loss']):.4f}")

    has_gpu = settings.device != "cpu" and torch.cuda.is_available()
    state = output / "checkpoints"
    arguments = trl.SFTConfig(
        output_dir=str(state),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        max_length=settings.max_length,
        completion_only_loss=True,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        logging_steps=25,
        save_steps=settings.save_steps,
        save_total_limit=2,
        seed=settings.seed,
        bf16=has_gpu and torch.cuda.is_bf16_supported(),
        use_cpu=not has_gpu,
        gradient_checkpointing=has_gpu,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=has_gpu,
    )
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    lora = LoraConfig(
        r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True),
        args=arguments,
        train_dataset=Dataset.from_list([_row(one, is_chat=settings.is_chat) for one in training]),
        eval_dataset=Dataset.from_list([_row(one, is_chat=settings.is_chat) for one in held_out]),
        processing_class=tokenizer,
        peft_config=lora if settings.lora_rank else None,
        callbacks=[Lines()],
    )
    newest = get_last_checkpoint(str(state)) if state.is_dir() else None
    before = _loss(trainer)
    trainer.train(resume_from_checkpoint=newest)
    after = _loss(trainer)
    trainer.save_model(str(output))
    tokenizer.save_pretrained(str(output))
    return {"before": before, "after": after}


def _loss(trainer: Any) -> float:
    loss = float(trainer.evaluate()["eval_loss"])
    if not math.isfinite(loss):
        raise ConfigError(f"The held-out loss is {loss}; the learning rate is too high. Lower learning_rate.")
    return loss


def _row(example: Example, *, is_chat: bool) -> dict[str, Any]:
    if not is_chat:
        return example._asdict()
    return {
        "prompt": [{"role": "user", "content": example.prompt}],
        "completion": [{"role": "assistant", "content": example.completion}],
    }
