"""
What stands in braces: the fields of a template, or the variables in any other text.

Owns how braces are read, and what a template may name. Pure: a text in, its pieces out.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

UNPAIRED = "has a brace without its partner; a literal brace is written twice: {{ or }}"


def pieces(text: str) -> Iterator[tuple[str, str | None, bool]]:
    """
    Yield what stands before a pair of braces, what stands in it (None at the end of the text), and
    whether a format or a conversion follows it.

    Raises:
        ValueError: a brace has no partner.
    """
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError:
        raise ValueError(UNPAIRED) from None
    for literal, name, form, conversion in parsed:
        yield literal, name, bool(form or conversion)


def template_fields(form: str) -> tuple[str, ...]:
    r"""
    The fields that a template such as "{title}\n{body}" names, each once.

    Raises:
        ValueError: it names none, or more than a field stands in some braces.
    """
    fields: list[str] = []
    for _, field, formatted in pieces(form):
        if field is None:
            continue
        if formatted or not _is_plain(field):
            raise ValueError("only plain fields such as {title} can be filled in")
        fields.append(field)
    if not fields:
        raise ValueError("names no field of the documents, as {title} would")
    return tuple(dict.fromkeys(fields))


def _is_plain(field: str) -> bool:
    return bool(field) and not field.isdigit() and not set(field) & set(".[]")
