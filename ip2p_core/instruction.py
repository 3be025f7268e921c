"""Instructions as text: cleaning, one per image, and what CLIP's 77 tokens cut off."""

from __future__ import annotations

from collections.abc import Callable

from .errors import BadInstruction

MAX_TOKENS = 77  # of CLIP, with its start and end token


def clean_instruction(text: str) -> str:
    """Return the instruction on one line without surrounding or doubled white space.

    Args:
        text: what the user wrote.

    Returns:
        The instruction as the text encoder gets it.

    Raises:
        BadInstruction: if nothing is left.
    """
    cleaned = " ".join(text.split())
    if not cleaned:
        raise BadInstruction(
            'The instruction is empty; write what shall change, for example "make it black and white".'
        )
    return cleaned


def split_lines(text: str, num_images: int) -> list[str]:
    """Give every image its instruction: one line serves all images, several lines one image each.

    Args:
        text: one instruction, or one per line; blank lines do not count.
        num_images: number of images.

    Returns:
        One instruction per image.

    Raises:
        BadInstruction: if the text is empty or the counts differ.
    """
    lines = [clean_instruction(line) for line in text.splitlines() if line.strip()]
    if not lines:
        return [clean_instruction(text)]
    if len(lines) == 1:
        return lines * num_images
    if len(lines) != num_images:
        images = "1 image" if num_images == 1 else f"{num_images} images"
        raise BadInstruction(
            f"There are {len(lines)} lines of instruction for {images}; write one line for all images, or one line "
            "per image."
        )
    return lines


def describe_truncation(
    text: str, count_tokens: Callable[[str], int], max_tokens: int = MAX_TOKENS, name: str = "instruction"
) -> str | None:
    """Say what the text encoder will not read.

    Args:
        text: one instruction.
        count_tokens: length in tokens with start and end token, not truncated; supplied by the adapter.
        max_tokens: most tokens that the encoder reads.
        name: what the text is.

    Returns:
        One sentence that names the words cut off, or None where everything is read.
    """
    num_tokens = count_tokens(text)
    if num_tokens <= max_tokens:
        return None
    words = text.split()
    low, high = 0, len(words)
    while low < high:  # the most words that fit
        middle = (low + high + 1) // 2
        if count_tokens(" ".join(words[:middle])) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    cut = words[low:]
    shown = " ".join(cut) if len(cut) <= 8 else f"{' '.join(cut[:5])} ... {' '.join(cut[-2:])}"
    return (
        f"The {name} has {num_tokens} tokens and the text encoder reads {max_tokens}: the last {len(cut)} of "
        f'{len(words)} words are cut, from "{shown}". Shorten the {name}.'
    )
