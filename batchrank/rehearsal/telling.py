"""
What the server tells for nothing: of a key, of the models, of who serves one.

Owns the form of these replies, OpenRouter's (OpenAPI document of 2026-08-22: `/key`, `/models`,
`/models/{author}/{slug}/endpoints`). They are on no bill, and meet no limit and no fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from batchrank.domain import Price
from batchrank.policy.billing import in_usd
from batchrank.rehearsal.bill import PRICE, PRICES
from batchrank.rehearsal.dials import Dials
from batchrank.rehearsal.replies import PROVIDER
from batchrank.rehearsal.tally import Bill

ROOT = "/api/v1"
KEY = f"{ROOT}/key"
MODELS = f"{ROOT}/models"
ENDPOINTS = "/endpoints"

CONTEXT = 32_768
"""The tokens that every model is said to take; nothing is cut at them."""

_encode = msgspec.json.Encoder().encode


def of_key(dials: Dials, label: str, bill: Bill) -> bytes:
    """
    What a key has spent, and may still spend.
    """
    limit, usage = dials.credit_usd, in_usd(bill.nano_usd)
    expires = dials.key_expires_at
    told = {
        "label": label,
        "limit": limit,
        "limit_remaining": None if limit is None else max(0.0, limit - usage),
        "limit_reset": None,
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        "creator_user_id": None,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "deprecated"},
        "expires_at": expires and expires.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        **{f"usage{span}": usage for span in _SPANS},
        **{f"byok_usage{span}": 0.0 for span in _SPANS},
    }
    return _encode({"data": told})


_SPANS = ("", "_daily", "_weekly", "_monthly")

_NOT_KNOWN = (
    *("quantization", "max_completion_tokens", "max_prompt_tokens"),
    *("latency_last_30m", "throughput_last_30m"),
    *("uptime_last_5m", "uptime_last_30m", "uptime_last_1d"),
)
"""Of who serves a model, what is told as null."""


def is_expired(dials: Dials) -> bool:
    """
    Tell whether every key is out of date.
    """
    return dials.key_expires_at is not None and dials.key_expires_at <= datetime.now(UTC)


def of_models(dials: Dials) -> bytes:
    """
    The models there are; where any is taken, those whose price is known.
    """
    data = [_model(name, dials) for name in sorted(dials.models or PRICES)]
    return _encode({"data": data, "total_count": len(data), "links": {"next": None}})


def of_endpoints(name: str, dials: Dials) -> bytes | None:
    """
    Who serves a model: this server; None if it is not there.
    """
    if dials.models and name not in dials.models:
        return None
    model = _model(name, dials)
    endpoint = {
        "name": f"{PROVIDER} | {name}",
        "model_id": name,
        "model_name": name,
        "provider_name": PROVIDER,
        "tag": PROVIDER,
        "status": 0,
        "pricing": model["pricing"],
        "context_length": CONTEXT,
        **dict.fromkeys(_NOT_KNOWN),
        "supported_parameters": [],
        "supports_implicit_caching": False,
    }
    return _encode({"data": {**model, "endpoints": [endpoint]}})


def _model(name: str, dials: Dials) -> Mapping[str, object]:
    return {
        "id": name,
        "canonical_slug": name,
        "name": name,
        "created": 0,
        "description": "",
        "architecture": {
            "modality": "text->rerank",
            "input_modalities": ["text", "image"],
            "output_modalities": ["rerank"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "context_length": CONTEXT,
        "top_provider": {"context_length": CONTEXT, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": [],
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"{MODELS}/{name}{ENDPOINTS}"},
        "pricing": _pricing(dials.price or PRICES.get(name, PRICE)),
    }


def _pricing(price: Price) -> Mapping[str, str]:
    """
    US dollars a token; search units have no place there.
    """
    million = price.usd_per_million_tokens or 0.0
    return {"prompt": f"{million / 1e6:.12f}".rstrip("0").rstrip("."), "completion": "0"}
