"""
Where each key of a TOML text stands, so that a problem can name its line.

`tomllib` gives values without places; this reads the syntax tree for the places only and takes no
part in what a value means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import tree_sitter
import tree_sitter_toml

Path = tuple[str | int, ...]
"""Where a value stands: keys and, inside arrays, 0-based places."""


class Lines:
    """
    The line on which each key of a TOML text stands, counted from 1.

    *again* is the last key or table of the text with its line and the one where it stood before,
    if it did; None if it stands there for the first time.
    """

    def __init__(self, text: str) -> None:
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
        self._lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}
        self.again: tuple[Path, int, int] | None = None
        self._table(parser.parse(text.encode()).root_node, ())

    def __contains__(self, path: Path) -> bool:
        return path in self._lines

    def of(self, path: Path) -> int:
        """
        The line of *path*, or of the nearest table around it that is there; 0 for none.
        """
        for end in range(len(path), 0, -1):
            if path[:end] in self._lines:
                return self._lines[path[:end]]
        return 0

    def _table(self, node: tree_sitter.Node, path: Path) -> None:
        for child in node.named_children:
            if child.type == "pair":
                at = self._mark(path, child.named_children[0])
                again = self.again
                self._value(child.named_children[-1], at)
                self.again = again or self.again
            elif child.type == "table":
                self._table(child, self._mark((), child.named_children[0]))
            elif child.type == "table_array_element":
                self._table(child, self._element(child.named_children[0]))

    def _value(self, node: tree_sitter.Node, path: Path) -> None:
        if node.type == "inline_table":
            self._table(node, path)
        elif node.type == "array":
            for place, item in enumerate(n for n in node.named_children if n.type != "comment"):
                self._lines[(*path, place)] = item.start_point.row + 1
                self._value(item, (*path, place))

    def _element(self, key: tree_sitter.Node) -> Path:
        path = self._mark((), key)
        place = self._arrays.get(path, 0)
        self._arrays[path] = place + 1
        self._lines[(*path, place)] = key.start_point.row + 1
        return (*path, place)

    def _mark(self, path: Path, key: tree_sitter.Node) -> Path:
        line, first = key.start_point.row + 1, 0
        for step in _key_steps(key):
            if path in self._arrays:  # [a.b] below [[a]] is of its last element
                path = (*path, self._arrays[path] - 1)
            path = (*path, step)
            first = self._lines.get(path, 0)
            self._lines.setdefault(path, line)
        self.again = (path, line, first) if first else None
        return path


def _key_steps(key: tree_sitter.Node) -> Iterator[str]:
    if key.type == "dotted_key":
        for child in key.named_children:
            yield from _key_steps(child)
    else:
        text = (key.text or b"").decode()
        yield next(iter(tomllib.loads(f"{text} = 0"))) if text[:1] in "\"'" else text
