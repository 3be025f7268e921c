"""Language and vision models of transformers: the only file that knows them.

Sampling adds Gumbel noise to the logits and takes the largest, which draws from the same distribution as the usual way
(Gumbel 1954; "Gumbel-max trick"); the noise of a row depends on its own seed alone, so that an answer is the same in every batch.

Shapes: B texts or pictures, L tokens, V words of the vocabulary, D length of a feature, H W in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ip2p_core.errors import CheckpointError, ConfigError
from ..ip2p_core.instruction_writer.client import Reply
from ..ip2p_core.instruction_writer.prompts import TEXT_END
from ..ip2p_core.picture_metrics import centre_crop, fit_shorter_side
from ..ip2p_core.randomness import generator
from .diffusers_adapter import choose_device
from .peft_adapter import add_lora_folder


class Sampling(NamedTuple):
    """How answers are drawn."""

    temperature: float = 0.7
    top_p: float = 1.0
    frequency_penalty: float = 0.1
    max_tokens: int = 256


class LanguageModel:
    """A causal language model with its tokenizer.

    Args:
        folder: of the model, as transformers saves it.
        device: "auto", or as torch names it.
        dtype: "auto", "float32", "float16" or "bfloat16".
        adapter: folder of a LoRA.

    Raises:
        CheckpointError: if the folder holds no such model.
        ConfigError: if there is no such device.
    """

    def __init__(self, folder: Path, device: str = "auto", dtype: str = "auto", adapter: Path | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # heavy

        if not folder.is_dir():
            raise CheckpointError(f"The language model {folder} is no folder. Give the folder of a transformers model.")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder} holds no language model that transformers reads ({error}).") from None
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model: Any = (add_lora_folder(model, adapter) if adapter else model).to(choose_device(device)).eval()

    @torch.inference_mode()
    def complete(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, *, is_chat: bool = False
    ) -> list[Reply]:
        """Answer questions together.

        Args:
            prompts: B questions.
            seeds: of their draws.
            sampling: how answers are drawn; temperature 0 takes the likeliest word.
            is_chat: put the questions into the chat template of the model.

        Returns:
            B answers, without the end marks.
        """
        texts = [self._as_chat(prompt) for prompt in prompts] if is_chat else list(prompts)
        rows = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not is_chat)
        rows.pop("token_type_ids", None)
        rows = rows.to(self.model.device)
        length = rows["input_ids"].shape[1]
        written = self.model.generate(
            **rows,
            do_sample=False,
            max_new_tokens=sampling.max_tokens,
            logits_processor=[_GumbelSampling(sampling, seeds, length)],
            stop_strings=None if is_chat else [TEXT_END],
            tokenizer=self.tokenizer,
            pad_token_id=self.tokenizer.pad_token_id,
        )[:, length:]
        prompt_tokens = rows["attention_mask"].sum(1).tolist()
        return [self._reply(*both, sampling.max_tokens) for both in zip(written, prompt_tokens, strict=True)]

    def _as_chat(self, prompt: str) -> str:
        if self.tokenizer.chat_template is None:
            raise ConfigError(
                "The language model has no chat template. Choose the style 'completion', or another model."
            )
        message = [{"role": "user", "content": prompt}]
        text: str = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return text

    def _reply(self, row: Tensor, prompt_tokens: int, max_tokens: int) -> Reply:
        ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        tokens = row.tolist()
        num_tokens = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        text = self.tokenizer.decode(tokens[:num_tokens], skip_special_tokens=True)
        is_cut = num_tokens >= max_tokens and TEXT_END not in text
        return Reply(text, is_cut, prompt_tokens, num_tokens)


class _GumbelSampling:
    """Changes logits so that their largest is a draw."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int], prompt_length: int) -> None:
        self._sampling, self._start = sampling, prompt_length
        self._generators = [generator(seed, "tokens") for seed in seeds]

    def __call__(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        """Penalise, scale, cut off and add noise to logits [B, V] after tokens [B, L]."""
        logits = logits.float()
        written = input_ids[:, self._start :]
        if self._sampling.frequency_penalty and written.shape[1]:
            counts = torch.zeros_like(logits).scatter_add_(1, written, torch.ones_like(written, dtype=logits.dtype))
            logits = logits - self._sampling.frequency_penalty * counts
        if not self._sampling.temperature:
            return logits
        logits = logits / self._sampling.temperature
        if self._sampling.top_p < 1:
            logits = _cut_tail(logits, self._sampling.top_p)
        uniform = torch.stack([torch.rand(logits.shape[1], generator=one) for one in self._generators])
        return logits - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(logits.device)


def _cut_tail(logits: Tensor, top_p: float) -> Tensor:
    """Rule out all but the likeliest words that together reach top_p (Holtzman et al. 2020)."""
    ordered, places = logits.sort(dim=1, descending=True)
    before = ordered.softmax(1).cumsum(1) - ordered.softmax(1)
    return logits.masked_fill((before >= top_p).gather(1, places.argsort(1)), -torch.inf)


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LONGEST_SIDE = 480


class VisionEncoder:
    """A vision transformer such as DINO (Caron et al. 2021, arXiv:2104.14294), for likeness of pictures.

    Args:
        folder: of the model, as transformers saves it, for instance facebook/dino-vits16.
        device: "auto", or as torch names it.

    Raises:
        CheckpointError: if the folder holds no vision transformer.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        from transformers import AutoModel  # heavy

        if not folder.is_dir():
            raise CheckpointError(f"The vision model {folder} is no folder. Give the folder of facebook/dino-vits16.")
        try:
            model: Any = AutoModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder} holds no vision model that transformers reads ({error}).") from None
        keys = [module for name, module in model.named_modules() if name.endswith(("k_proj", "attention.key"))]
        if not keys or not hasattr(model.config, "image_size"):
            raise CheckpointError(
                f"{folder} is no vision transformer with keys. Give the folder of facebook/dino-vits16."
            )
        self.name, self.image_size = folder.name, int(model.config.image_size)
        self.model = model.to(choose_device(device)).float().eval()
        self._key = keys[-1]

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Turn pictures into features of the first token, as MagicBrush's program does: resize 256/224, middle, ImageNet.

        Args:
            images: [B, H, W, 3] in [0, 1].

        Returns:
            [B, D] of length 1.
        """
        pixels = centre_crop(images, self.image_size, round(self.image_size * 256 / 224))
        features = self.model(self._normalise(pixels)).last_hidden_state[:, 0]
        return torch.nn.functional.normalize(features, dim=1).cpu()

    @torch.inference_mode()
    def self_similarity(self, image: Tensor) -> Tensor:
        """Cosines between the last layer's keys of all places of a picture: its structure (Tumanyan et al. 2022).

        As PIE-Bench's program does, the picture is normalised on 0 to 255 with the means of 0 to 1: its numbers depend on it.

        Args:
            image: [H, W, 3] in [0, 1]; its shorter side is resized to the model's size.

        Returns:
            [L, L], with the first token.
        """
        width, height = fit_shorter_side(image.shape[1], image.shape[0], self.image_size, LONGEST_SIDE)
        pixels = image.movedim(-1, 0)[None] * 255.0
        pixels = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
        seen: list[Tensor] = []
        hook = self._key.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            self.model(self._normalise(pixels.movedim(1, -1)), interpolate_pos_encoding=True)
        finally:
            hook.remove()
        keys = seen[0][0]
        lengths = keys.norm(dim=1, keepdim=True)
        cosines: Tensor = (keys @ keys.T) / (lengths @ lengths.T).clamp(min=1e-8)
        return cosines.cpu()

    def _normalise(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
        normalised: Tensor = ((images.movedim(-1, 1) - mean) / std).to(self.model.device)
        return normalised
