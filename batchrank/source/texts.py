"""
How a document's text is made of its fields: taken as it is, filled into a template, or as YAML.

Owns the rules, what counts as nothing to send, and where a text that is too long is cut. Knows no
Parquet: values arrive as lists, one for each field, and leave as one list of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import yaml

from batchrank.config.braces import template_fields

T = TypeVar("T")

Values = Sequence[object | None]
"""One field of some documents, in their order."""


@dataclass(frozen=True, slots=True)
class Plain:
    """
    The text is one field; without any field the documents are texts themselves, or only images.
    """

    fields: tuple[str, ...] = ()

    def texts(self, columns: Sequence[Values]) -> list[str | None]:
        """
        The documents' texts, None where there is nothing to send.
        """
        return [None if is_blank(value) else str(value) for value in columns[0]]


@dataclass(frozen=True, slots=True)
class Template:
    """
    The text is *form* with the fields filled in, null as nothing.
    """

    form: str
    fields: tuple[str, ...]

    def texts(self, columns: Sequence[Values]) -> list[str | None]:
        """
        The documents' texts, None where every field is blank: the form alone says nothing.
        """
        return [self._text(values) for values in zip(*columns, strict=True)]

    def _text(self, values: Values) -> str | None:
        if all(map(is_blank, values)):
            return None
        words = ("" if value is None else value for value in values)
        return self.form.format(**dict(zip(self.fields, words, strict=True)))


@dataclass(frozen=True, slots=True)
class Yaml:
    """
    The text is the fields as YAML, in this order and without those that are null.

    The dumper is PyYAML's own, never libyaml's: the two fold lines and escape emoji differently,
    and a text must not depend on how PyYAML was built.
    """

    fields: tuple[str, ...]

    def texts(self, columns: Sequence[Values]) -> list[str | None]:
        """
        The documents' texts, None where every field is blank.
        """
        return [self._text(values) for values in zip(*columns, strict=True)]

    def _text(self, values: Values) -> str | None:
        if all(map(is_blank, values)):
            return None
        pairs = zip(self.fields, values, strict=True)
        there = {field: value for field, value in pairs if value is not None}
        return yaml.dump(there, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """
    PyYAML's, but that Unicode's own line breaks are escaped: it would write them with an indent
    behind them, and some of them are read back as others.
    """


def _represented(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _BREAKS.isdisjoint(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_BREAKS = frozenset("\x85\u2028\u2029")
_Dumper.add_representer(str, _represented)


TextRule = Plain | Template | Yaml


def is_blank(value: object | None) -> bool:
    """
    Tell whether a value is null, empty or only white space: there is nothing to send.
    """
    return value is None or (isinstance(value, str) and (not value or value.isspace()))


def shortened(texts: Sequence[str | None], chars_max: int) -> tuple[Sequence[str | None], int]:
    """
    The beginnings of texts, of so many characters at most, None where they are blank; and how many
    texts were longer.

    A character is a code point. A cut may part a letter from its accent: where a letter ends with
    all its marks is told otherwise by each version of Unicode, and scores must not depend on that.
    """
    longer = [text is not None and len(text) > chars_max for text in texts]
    if not any(longer):
        return texts, 0
    beginnings = (text and text[:chars_max] for text in texts)
    return [None if is_blank(text) else text for text in beginnings], sum(longer)


def template(form: str) -> Template:
    r"""
    Read a template such as "{title}\n{body}"; a ValueError says what is wrong with it.
    """
    return Template(form, template_fields(form))


def distinct(names: Iterable[T]) -> tuple[T, ...]:
    """
    The names without repetitions, in their order.
    """
    return tuple(dict.fromkeys(names))
