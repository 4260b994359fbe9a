"""
Stacks as a flame graph: an SVG without a script, the same for the same samples.

Owns the picture alone. Width is how often a frame was seen, colours go by package, frames that are
too narrow are left out; what is cut off a name is told when one points at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape
from zlib import crc32

WIDTH, ROW, TITLE = 1_200, 17, 30
CHARACTER = 6.6
"""Width of a letter in a monospaced font of 11 px."""

OWN = "batchrank."
OWN_HUE, OTHER_HUES = 18, (190, 260)
"""Ours is orange; others are from green to violet, by the name of the package."""


@dataclass(slots=True)
class Frame:
    """
    A frame with all that was called from it.
    """

    name: str
    count: int = 0
    below: dict[str, Frame] = field(default_factory=dict)

    def add(self, stack: tuple[str, ...], count: int) -> None:
        """
        Count one stack, of which this frame is the root.
        """
        frame = self
        frame.count += count
        for name in stack:
            frame = frame.below.setdefault(name, Frame(name))
            frame.count += count

    @property
    def depth(self) -> int:
        """
        How many rows it takes.
        """
        return 1 + max((frame.depth for frame in self.below.values()), default=0)


@dataclass(frozen=True, slots=True)
class Box:
    """
    A frame's place: its left edge and its width in pixels, its row from the bottom.
    """

    frame: Frame
    left: float
    width: float
    row: int


def drawn(stacks: Mapping[tuple[str, ...], int], title: str, share_min: float) -> str:
    """
    The picture as text. Frames of less than *share_min* of all samples are left out.
    """
    root = Frame("all")
    for stack, count in sorted(stacks.items()):
        root.add(stack, count)
    boxes = list(_boxes(root, 0.0, WIDTH / (root.count or 1), 0, share_min * root.count))
    rows = 1 + max(box.row for box in boxes)
    height = TITLE + rows * ROW
    shapes = "\n".join(_shape(box, height, root.count) for box in boxes)
    style = "text{font:11px monospace;pointer-events:none}rect{stroke:#fff;stroke-width:.5}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="4" y="18">{escape(title)}: {root.count:,} samples</text>\n{shapes}\n</svg>\n'
    )


def _boxes(frame: Frame, left: float, pixels: float, row: int, least: float) -> Iterator[Box]:
    if frame.count < least:
        return
    yield Box(frame, left, frame.count * pixels, row)
    for name in sorted(frame.below):
        below = frame.below[name]
        yield from _boxes(below, left, pixels, row + 1, least)
        left += below.count * pixels


def _shape(box: Box, height: int, total: int) -> str:
    top = height - (box.row + 1) * ROW
    name, letters = box.frame.name, int((box.width - 4) / CHARACTER)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…" if letters > 3 else ""
    told = f"{name}: {box.frame.count / total:.1%}"
    rect = f'<rect x="{box.left:.1f}" y="{top}" width="{box.width:.1f}" height="{ROW}"'
    text = f'<text x="{box.left + 2:.1f}" y="{top + 12}">{escape(shown)}</text>' if shown else ""
    return f'{rect} fill="{_colour(name)}"><title>{escape(told)}</title></rect>{text}'


def _colour(name: str) -> str:
    if name.startswith(OWN):
        return f"hsl({OWN_HUE + crc32(name.encode()) % 24},85%,68%)"
    low, high = OTHER_HUES
    return f"hsl({low + crc32(name.split('.', maxsplit=1)[0].encode()) % (high - low)},45%,78%)"
