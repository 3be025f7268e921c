"""A tiny language model of the real classes, fine-tuned on the grammar's triplets, and transformers' own server around it."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ip2p.ip2p_core.instruction_writer import write_edit
from ip2p.ip2p_core.instruction_writer.prompts import base_completion, base_prompt
from ip2p.tests.forked import ENVIRONMENT, ip2p
from ip2p.trainer.shape_world.scene import random_scene

PAD, END = "<pad>", "<end>"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}\n##\n"
"""The tiny model knows one format; as a chat model it gets the caption alone."""
CHAT_QUESTION = "{caption}"


def shape_captions(count: int, start: int = 0) -> list[str]:
    """Different captions of the embedded generator's world, each a pure function of its number."""
    found: dict[str, None] = {}
    number = start
    while len(found) < count:
        found.setdefault(
            random_scene(random.Random(number), random.Random(number).randint(1, 2), allow_held_out=True).caption()
        )
        number += 1
    return list(found)


def write_captions(path: Path, captions: list[str]) -> Path:
    path.write_text("\n".join(captions), encoding="utf-8")
    return path


def grammar_triplets(path: Path, count: int) -> Path:
    """A file of the grammar's triplets."""
    with path.open("w", encoding="utf-8") as opened:
        for number in range(count):
            rng = random.Random(number)
            caption = random_scene(rng, rng.randint(1, 2), allow_held_out=True).caption()
            written = write_edit(caption, number)
            record = {"input": caption, "edit": written.instruction, "output": written.edited_caption}
            opened.write(json.dumps(record) + "\n")
    return path


def new_language_model(folder: Path, width: int = 96, layers: int = 2) -> Path:
    """A Llama of random weights with a byte-level BPE vocabulary made from the grammar's triplets."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = []
    for number, caption in enumerate(shape_captions(600)):
        written = write_edit(caption, number)
        texts.append(base_prompt(caption) + base_completion(written.instruction, written.edited_caption))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=[PAD, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, chat_template=CHAT_TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, pad_token_id=fast.pad_token_id, eos_token_id=fast.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def finetune(base: Path, triplets: Path, output: Path, **settings: object) -> subprocess.CompletedProcess:
    """Run ip2p triplets --finetune on a model of this size."""
    record = {
        "base": str(base), "output": str(output), "triplets": str(triplets), "lora_rank": 0, "learning_rate": 3e-3,
        "batch_size": 32, "accumulation": 1, "device": "cpu", "max_length": 160, "held_out": 0.02, "save_steps": 10_000,
    }  # fmt: skip
    return run_triplets({**record, **settings}, output.parent, "--finetune")


def run_triplets(settings: dict, folder: Path, *arguments: str, seconds: float = 840, **environment: str):
    """Run ip2p triplets with these settings."""
    path = folder / "triplets_config.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return ip2p("triplets", path, *arguments, environment={**ENVIRONMENT, **environment}, timeout=seconds)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@contextmanager
def language_server(model: Path, folder: Path) -> Iterator[str]:
    """transformers' own OpenAI-compatible server with one model; yields its address."""
    port = free_port()
    log_path = folder / "server.log"
    tool = Path(sys.executable).with_name("transformers")
    command = [tool, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        end = time.monotonic() + 180
        while not _is_up(port):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"The server did not start.\n{log_path.read_text()[-4000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except OSError:
        return False
