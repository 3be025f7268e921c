"""SD1.5 at full size on a GPU: random weights, 512 pixels, bfloat16; seconds, and the share of the measured matrix rate."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from ..ip2p_core.model_config import family_config
from ..trainer.diffusers_adapter import new_modules
from ..trainer.edit_backend import ClipEncoders, DiffusersCodec, Editor, make_schedule
from .contenders import EXACT, diffusers_pipeline, ours, picture
from .timing import measure, report, say

SIZE = 512
UNET_FLOP, ENCODE_FLOP, DECODE_FLOP = 803.4e9, 1116.7e9, 2514.5e9  # one image of 512 pixels, one forward
NUM_BRANCHES = 3
END_ID = 49407
GOALS = {(100, 1): 1.0, (100, 8): 0.62}  # seconds per image on an H200
GOAL_SPEEDUP = 2.5  # over diffusers' default pipeline


def full_size_editor() -> Editor:
    """Build SD1.5 with 8 input channels and random weights in bfloat16 on the GPU."""
    config = family_config("sd1", 8)
    torch.manual_seed(0)
    with torch.device("cuda"):
        networks: tuple[Any, ...] = new_modules(config.unet, config.vae, config.text_encoder)
    unet, vae, text = (network.to(torch.bfloat16).eval().requires_grad_(False) for network in networks)
    codec = DiffusersCodec(vae, config.scaling_factor, config.vae_factor)
    return Editor(config, unet, codec, ClipEncoders([text], [END_ID]), make_schedule(config))


def matrix_rate(size: int = 8192, num_rounds: int = 50) -> float:
    """Measure bfloat16 matrix products, in FLOP per second."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(num_rounds):
        a @ b
    torch.cuda.synchronize()
    return 2.0 * size**3 * num_rounds / (time.perf_counter() - start)


def run(num_rounds: int) -> None:
    """Time every case and print it; without a GPU say that nothing was measured."""
    if not torch.cuda.is_available():
        say("\nSD1.5 full size on a GPU: unmeasured (no GPU here).")
        return
    rate = matrix_rate()
    say(
        f"\nSD1.5 full size, {SIZE} px, bfloat16, {torch.cuda.get_device_name()}; matrix products {rate / 1e12:.0f} TFLOP/s"
    )
    default = median(measure({"d": diffusers_pipeline(full_size_editor(), picture(SIZE), EXACT, 100)}, num_rounds)["d"])
    for is_compiled in (False, True):
        for is_channels_last in (False, True):
            _run_variant(rate, default, num_rounds, is_compiled, is_channels_last)


def _run_variant(rate: float, default: float, num_rounds: int, is_compiled: bool, is_channels_last: bool) -> None:
    editor = full_size_editor()
    if is_channels_last:
        editor.use_channels_last()
    if is_compiled:
        editor.compile()
    name = f"compile {'on' if is_compiled else 'off'}, channels-last {'on' if is_channels_last else 'off'}"
    for steps in (20, 100):
        for num_images in (1, 8):
            torch.cuda.reset_peak_memory_stats()
            case = ours(editor, picture(SIZE, num_images).cuda(), EXACT, steps)
            seconds = median(measure({"ours": case}, num_rounds)["ours"]) / num_images
            flop = steps * NUM_BRANCHES * UNET_FLOP + ENCODE_FLOP + DECODE_FLOP
            goal = GOALS.get((steps, num_images))
            verdict = "" if goal is None else f"   goal <= {goal} s: {'reached' if seconds <= goal else 'MISSED'}"
            say(
                f"  {name}, {steps:3} steps, batch {num_images}: {seconds:6.3f} s per image, {flop / seconds / rate:5.1%} of "
                f"the matrix rate, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB{verdict}"
            )
            if (steps, num_images) == (100, 1):
                report(
                    f"  against diffusers' default pipeline, 100 steps, batch 1 ({name})",
                    {"diffusers": [default], "ours": [seconds]},
                    "diffusers",
                    {"ours": 1 / GOAL_SPEEDUP} if is_compiled and is_channels_last else {},
                )
