"""What can go wrong, as one sentence for the user.

Every message says what is wrong with the value seen, what is needed, and what to do.
"""

from __future__ import annotations


class Ip2pError(Exception):
    """Base of every error that a user can cause and repair."""


class ModelMismatch(Ip2pError):
    """The model is not of the kind that this step needs, for example 4 input channels instead of 8."""


class BadImage(Ip2pError):
    """A file is not a readable image."""


class BadImageSize(Ip2pError):
    """Two pictures, or a picture and a mask or latent, do not have the same size."""


class BadInstruction(Ip2pError):
    """An instruction is empty, or the number of instructions does not fit the number of images."""


class CheckpointError(Ip2pError):
    """A model file or folder cannot be read or written."""


class NonFiniteLatents(Ip2pError):
    """Latents contain NaN or infinity; decoding them would give a black picture."""


class OutputExists(Ip2pError):
    """The output path is already taken and overwriting was not asked for."""


class BadTriplet(Ip2pError):
    """A triplet, or a file of triplets, cannot be used."""


class PairStoreError(Ip2pError):
    """Pairs, or a dataset of pairs, cannot be read or written."""


class PictureError(PairStoreError):
    """One picture, or one pair of pictures, cannot be used; others can."""


class ServerError(Ip2pError):
    """A language-model server refuses a request, or does not answer."""


class WorkerError(Ip2pError):
    """A process that did a part of the work has ended before its time."""


class ConfigError(Ip2pError):
    """One or several settings are wrong; the message lists all of them."""

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = mistakes
        super().__init__(" ".join(mistakes))


class TrainingHalted(Ip2pError):
    """A training cannot go on, for example because its loss is no longer finite."""
