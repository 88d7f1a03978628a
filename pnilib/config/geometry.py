"""How an image and its mask become a square (paper sec. 4.1)."""

from dataclasses import dataclass

from pnilib.errors import PNIError

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """How an image and its mask become a square tensor (PNI sec. 4.1).

    resize: side of the square, or length of the shorter edge (`resize_mode="short"`), px.
    crop: side of the centre crop, px.  mask_resize: `nearest`, or `floor`, the released rule:
    bilinear, and only pixels whose interpolated value is exactly 1 count (B21).
    bit_depth: bits in use of images of more than 8 bits; 0: all 16.
    """

    resize: int = 512
    crop: int = 480
    resize_mode: str = "square"
    mask_resize: str = "nearest"
    bit_depth: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise PNIError(f"crop={self.crop}: must lie between 1 and resize={self.resize}: choose a smaller one")
        if self.resize_mode not in ("square", "short"):
            raise PNIError(f"resize_mode={self.resize_mode!r}: unknown: choose square or short")
        if self.mask_resize not in ("nearest", "floor"):
            raise PNIError(f"mask_resize={self.mask_resize!r}: unknown: choose nearest or floor")
        if self.bit_depth not in (0, *range(8, 17)):
            raise PNIError(f"bit_depth={self.bit_depth}: must be 8 ... 16, or 0 for all 16 bits")

    @property
    def white(self) -> int:
        """The largest value of an image of more than 8 bits."""
        return int(2 ** (self.bit_depth or 16) - 1)
