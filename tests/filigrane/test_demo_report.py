"""The demo's verdict on itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.models import Match, Media
from filigrane.demo.plan import Decoy, Place, Plan, Planted
from filigrane.demo.report import compare, evidence, expected, smallest_gap
from filigrane.demo.server import Request, Served

FILE, PAGE, OTHER = Place("a", "/cat.jpg"), Place("a", "/"), Place("a", "/again")
DECOY = Place("a", "/other.jpg")
SECRET = Place("a", "/private/cat.jpg")


@pytest.fixture
def served() -> Served:
    plan = Plan(
        folder=Path(),
        hosts=("a",),
        sites=("a",),
        titles={"a": "A"},
        originals=(),
        planted=(Planted(FILE, "cat", "JPEG 40", False, (PAGE, OTHER)),),
        decoys=(Decoy(DECOY, "another cat", (PAGE,)),),
        forbidden=(SECRET,),
        broken=(),
        missing=(),
    )
    return Served(plan, {"a": "http://a.test"}, None)


def match(file: Place, page: Place, name: str = "cat") -> Match:
    return Match(
        query_url=f"http://a.test{file.path}",
        page_url=f"http://a.test{page.path}",
        watermarked=False,
        verdict="copy",
        score=45.2,
        media=[Media(path=f"local/demo/{name}.png")],
    )


def test_all_found_and_nothing_else(served: Served) -> None:
    assert len(expected(served)) == 2
    report = compare(served, [match(FILE, PAGE), match(FILE, OTHER)])
    assert report.good
    assert (report.found, report.planted) == (2, 2)


def test_a_page_that_is_missing_is_missed(served: Served) -> None:
    report = compare(served, [match(FILE, PAGE)])
    assert not report.good
    assert [each.page for each in report.missed] == ["http://a.test/again"]


@pytest.mark.parametrize("wrong", [match(DECOY, PAGE), match(FILE, PAGE), match(FILE, PAGE, "dog")], ids=["decoy", "twice", "other"])
def test_one_match_too_many_is_wrong(served: Served, wrong: Match) -> None:
    report = compare(served, [match(FILE, PAGE), match(FILE, OTHER), wrong])
    assert not report.good
    assert len(report.wrong) == 1
    assert report.decoys_matched == (wrong.query_url == served.url(DECOY))


def test_who_goes_where_robots_forbid_fails(served: Served) -> None:
    served.note(Request("a", "/private/cat.jpg", 200, 1.0, "filigrane"))
    report = compare(served, [match(FILE, PAGE), match(FILE, OTHER)])
    assert report.trespassed == ("http://a.test/private/cat.jpg",)
    assert not report.good


def test_evidence_is_short() -> None:
    assert evidence(match(FILE, PAGE)) == "copy score 45"
    marked = match(FILE, PAGE)
    marked.watermarked, marked.p_value = True, 3.2e-38
    assert evidence(marked) == "watermark p=3e-38"
    marked.p_value = 0.0
    assert evidence(marked) == "watermark p<1e-300"


def test_the_smallest_gap_is_within_one_host() -> None:
    requests = [Request(host, "/", 200, at, "") for host, at in (("a", 1.0), ("b", 1.01), ("a", 1.5), ("b", 3.0))]
    assert smallest_gap(requests) == pytest.approx(0.5)
    assert smallest_gap([]) == 0.0
