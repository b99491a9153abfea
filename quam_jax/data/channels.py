"""Channels have names: which differences between an image's and a network's are bridged, and in what words that is said."""

from .volumes import Image

LUMINANCE = "the network takes one channel: the luminance of red, green and blue is taken"
REPEATED = "the network takes three channels and the image is grey: it is repeated in all three"


def require_channels(image: Image, channels: int) -> list[str]:
    """What is done so that an image has the network's channels, in words; nothing where it has them.

    ValueError, naming the image, for channels that nothing can be done about: three of which nobody says that they are colours
    are no grey image.
    """
    got = image.array.shape[-1]
    if got == channels:
        return []
    if (got, channels) == (1, 3):
        return [REPEATED]
    if (got, channels) == (3, 1) and image.is_colour:
        return [LUMINANCE]
    where = "along the fourth axis" if image.geometry.kind == "nifti" else "in the file"
    advice = "; contrasts or times are no colours: give the one that the network takes" if got > channels else ""
    if got < channels and got > 1 and any("transparency" in note for note in image.notes):
        advice = "; transparency is no channel"
    raise ValueError(f"{image.path}: the network takes {channels} channels, got {got} {where}{advice}")
