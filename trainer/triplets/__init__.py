"""The text stage: captions to triplets of caption, instruction, edited caption (arXiv:2211.09800, section 3.1)."""
