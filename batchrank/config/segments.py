"""
Values of variables in paths: `out/dt={date}` names one folder, whatever the value is.

Owns how a value is written as a folder's name (as Hive and Spark write partitions, so that readers
of partitioned data get the value back), and which names are refused. Pure: looks at no disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SEGMENT_BYTES_MAX = 200
"""File systems take 255, and an output that is set aside gets a longer name."""

_ESCAPED = (*range(0x01, 0x20), 0x7F, *map(ord, "\"#%'*/:=?\\{[]^"))
"""What Hive writes as % and two digits; a zero character is refused wherever it stands."""

_ESCAPES = {code: f"%{code:02X}" for code in _ESCAPED}


@dataclass(slots=True)
class _Segment:
    text: str
    holds_value: bool = False


def path_of(pieces: Iterable[tuple[str, bool]]) -> str:
    """
    Put a path together from pieces, each with whether it is a variable's value.

    A value that the path begins with is a path of its own, as in "{data}/dt={date}", and stays as
    it is. Any other is part of one name: `/` and whatever else means something in paths or globs is
    written as % and two digits, and so is a dot that the name would begin with. So no value leads
    elsewhere, `..` neither, and different values are different names.

    Raises:
        ValueError: a name would be empty but for its `key=`, or longer than SEGMENT_BYTES_MAX.
    """
    segments = [_Segment("")]
    for text, is_value in pieces:
        last = segments[-1]
        begins = len(segments) == 1 and not last.text
        if is_value and not (begins and text):
            last.text += escaped(text, last.text)
            last.holds_value = True
        else:
            first, *others = text.split("/")
            last.text += first
            segments += map(_Segment, others)
    for segment in segments:
        if segment.holds_value:
            _check(segment.text)
    return "/".join(segment.text for segment in segments)


def escaped(value: str, before: str = "") -> str:
    """
    *value* as a part of one folder's name, of which *before* stands already.
    """
    text = value.translate(_ESCAPES)
    if text.startswith(".") and not before.strip("."):
        return f"%2E{text[1:]}"
    return text


def _check(name: str) -> None:
    if not name.strip(".") or name.endswith("="):
        raise ValueError("a folder would have no name, because a variable is empty")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > SEGMENT_BYTES_MAX:
        raise ValueError(
            f"a folder's name would have {size:,} bytes, and at most {SEGMENT_BYTES_MAX} are taken"
        )
