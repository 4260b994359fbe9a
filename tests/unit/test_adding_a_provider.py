"""
The page `docs/providers.md`, followed to the letter.

Its code becomes a module, its cases become files, its job file is loaded; then everything that
holds for our own vendors has to hold for this one.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from batchrank.examine.providers import providers
from batchrank.job import loading, ways
from batchrank.providers import VENDORS, Vendor
from batchrank.providers.base import Onward, Settings
from tests import playing
from tests.unit import test_vendors as everybody

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")


def block(language: str) -> str:
    """
    What stands on the page in the one block of a language.
    """
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """
    The page's vendor, among ours, with its cases.
    """
    module = tmp_path / "acme.py"
    module.write_text(block("python"))
    spec = importlib.util.spec_from_file_location("batchrank.providers.presets.acme", module)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    vendor = made.ACME
    assert isinstance(vendor, Vendor)

    folder = tmp_path / "cases" / "acme"
    folder.mkdir(parents=True)
    (folder / "good.json").write_text(block("json"))
    for line in block("jsonl").splitlines():
        case = json.loads(line)
        (folder / f"{case['name']}.json").write_text(line)
    monkeypatch.setattr(playing, "CASES", folder.parent)
    monkeypatch.setitem(VENDORS, "acme", vendor)
    monkeypatch.setitem(ways.OPTION_MODELS, "acme", vendor.options)
    return vendor


def is_of_each_vendor(test: object) -> bool:
    """
    Tell a test that is played once for each vendor.
    """
    return any(mark.args == ("name", VENDORS) for mark in getattr(test, "pytestmark", ()))


def test_whoever_follows_the_page_has_a_vendor_like_ours(acme: Vendor) -> None:
    """
    Its cases can be played, and it stands all that ours have to stand.
    """
    for case in playing.cases_of("acme").values():
        if "call" in case:
            playing.play_call(acme, case)
        playing.play_reading(acme, case)
    of_each = [test for test in vars(everybody).values() if is_of_each_vendor(test)]
    for test in of_each:
        test(name="acme")
    assert 7 == len(of_each)


def test_it_is_listed_as_ours_are(acme: Vendor) -> None:
    """
    With what the page says of it.
    """
    told = " ".join(providers("acme").as_text().split())

    assert "500 passages a request; 300 requests a minute" in told
    assert "acme-rank-1 $0.03 a million tokens (docs.acme.example, 2026-11-20)" in told


def test_what_decides_a_score_is_known_of_it(acme: Vendor) -> None:
    """
    That passages come back decides none.
    """
    assert "depth" in acme.score_options
    assert "echo" not in acme.score_options


def test_the_job_file_of_the_page_asks_the_same(
    acme: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What a job file tells of Acme gives the same call and the same reading as the preset.
    """
    monkeypatch.setenv("ACME_API_KEY", "sk-acme")
    file = tmp_path / "job.toml"
    file.write_text(block("toml"))
    job = loading.load(file)
    assert job.vendor is not None
    case = playing.cases_of("acme")["good"]
    asking, reply = playing.request_of(case), playing.reply_of(case)
    told = job.vendor.make(job.settings())
    preset = acme.make(Settings("acme-rank-1", acme.base_url, None, acme.options()))

    assert told.call(asking) == preset.call(asking)
    read, expected = told.read(asking, reply), preset.read(asking, reply)
    assert not isinstance(read, Onward)
    assert not isinstance(expected, Onward)
    assert (read.served and read.served.provider, job.bounds.documents_max) == ("compatible", 500)
    assert getattr(read, "scores", ()) == getattr(expected, "scores", None)
    assert read.usage == expected.usage
