"""
What each setting decides: a score, the form of the output, or neither.

Owns these three kinds, and the digests of the first: those settings make the fingerprint of an
output, and those of them that say who is asked make what is asked the same or another. Whatever is
of no kind here changes freely.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from batchrank.config.schema import JobConfig

_SCORE_SOURCE = ("query", "query_id", "documents", "doc_id", "text", "template", "yaml", "image")
_SENT_SOURCE = ("max_chars", "dedupe_documents")
"""They decide a score where they are set; where they are not, nothing is said of them."""

_STAGED_SOURCE = (
    *("table", "sql", "sql_file", "parameters"),
    *("score", "rank", "depth", "group_order", "unmatched"),
)
"""They decide a score where they are set; where files lie is in the files' identities."""


def score_settings(
    job: JobConfig, options: Mapping[str, object], base_url: str, others: Sequence[str] = ()
) -> dict[str, object]:
    """
    Every setting that decides a score, by its name in the job file.

    *options* are the vendor's request fields that matter for a score, *base_url* where it is asked;
    *others* the models that may score beside the one that is named. Of further ways to one model
    nothing is said: they decide no score.
    """
    settings: dict[str, object] = {
        "provider.name": job.provider.name,
        "provider.model": job.provider.model,
        "provider.base_url": base_url,
        "provider.send_top_n": job.provider.send_top_n,
    }
    if others:
        settings["provider.other_models"] = [*others]
    if job.provider.send_top_n:
        settings["output.top_n"] = job.output.top_n
    settings |= {f"provider.options.{key}": value for key, value in options.items()}
    settings |= {f"source.{key}": getattr(job.source, key) for key in _SCORE_SOURCE}
    sent = {key: getattr(job.source, key) for key in _SENT_SOURCE}
    settings |= {f"source.{key}": value for key, value in sent.items() if value}
    set_here = job.source.model_dump(mode="json", include=set(_STAGED_SOURCE), exclude_unset=True)
    settings |= {f"source.{key}": value for key, value in set_here.items()}
    if job.source.attach:
        # Which is which; what a variable holds is told by what PostgreSQL gives.
        attached = job.source.attach.items()
        settings["source.attach"] = {alias: [one.type, one.path] for alias, one in attached}
    return json.loads(json.dumps(settings, sort_keys=True))  # type: ignore[no-any-return] # JSON of a dict


def output_settings(job: JobConfig) -> dict[str, object]:
    """
    Every setting that shapes the parts and no score: changing one renders them again, for nothing.
    """
    settings: dict[str, object] = {
        "output.layout": job.output.layout,
        "output.top_n": job.output.top_n,
        "output.part_groups": job.output.part_groups,
        "source.carry": list(job.source.carry),
    }
    if job.output.reuse_pairs:
        settings["output.reuse_pairs"] = True
    return settings


def fingerprint(settings: Mapping[str, object]) -> str:
    """
    Digest settings: the hex SHA-256 of their canonical JSON.
    """
    return _digested(settings).hex()


def asking(settings: Mapping[str, object]) -> bytes:
    """
    Digest those score settings that say who is asked, and how: two requests with the same texts are
    the same if this is the same, wherever the texts came from.
    """
    return _digested({k: v for k, v in settings.items() if _says_who(k)})


def _says_who(key: str) -> bool:
    # What else stands under `source` is in the texts; that equal ones are sent once is not.
    return not key.startswith("source.") or key == "source.dedupe_documents"


def _digested(settings: Mapping[str, object]) -> bytes:
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).digest()
