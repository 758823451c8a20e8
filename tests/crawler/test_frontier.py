"""The frontier is a fold over records: replaying them gives the same one, whatever was in flight."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.frontier import Frontier, Task, decode_snapshot, encode_snapshot, replay
from crawler.journal import Image, Page, Pointer, Record, Skip

SITE = "http://site.example"


def page(name: str, links: list[str] | None = None, images: list[str] | None = None) -> Page:
    found = tuple(f"{SITE}/{link}" for link in links or ())
    shown = tuple((f"{SITE}/{image}.jpg", image) for image in images or ())
    return Page(f"{SITE}/{name}", "", 0, "fetched", 1.0, 1.0, 200, links=found, images=shown)


def picture(name: str, page_name: str, seq: int = 0) -> Image:
    return Image(
        f"{SITE}/{name}.jpg", f"{SITE}/{page_name}", "fetched", 1.0, 1.0, alt=name, status=200, sha256=name, tar=Pointer(seq, 0, 9)
    )


def seeded() -> Frontier:
    frontier = Frontier()
    frontier.seed([f"{SITE}/"])
    return frontier


def waiting(frontier: Frontier) -> list[str]:
    return sorted(task.url for task in frontier.unfinished())


def test_images_come_before_pages_and_each_url_once() -> None:
    frontier = seeded()
    start = frontier.take("site.example")
    assert start is not None
    assert start.url == f"{SITE}/"
    frontier.apply(page("", ["a", "b", "a"], ["x"]))
    taken = [frontier.take("site.example") for _ in range(4)]
    assert [task and task.url for task in taken] == [f"{SITE}/x.jpg", f"{SITE}/a", f"{SITE}/b", None]
    assert taken[1] is not None
    assert taken[1].depth == 1


def test_a_stored_picture_is_announced_with_its_pages_and_later_ones() -> None:
    frontier = seeded()
    frontier.apply(page("", ["a"], ["x"]))
    frontier.apply(page("a", [], ["x"]))
    (first,) = frontier.apply(picture("x", ""))
    assert [page_url for page_url, _ in first.sightings] == [f"{SITE}/", f"{SITE}/a"]
    (second,) = frontier.apply(page("b", [], ["x"]))
    assert second.sightings == ((f"{SITE}/b", "x"),)
    assert frontier.apply(page("b", [], ["x"])) == []


def test_given_back_is_first_again() -> None:
    frontier = seeded()
    frontier.apply(page("", ["a", "b"]))
    frontier.settle()
    task = frontier.take("site.example")
    assert task is not None
    frontier.give_back(task)
    assert frontier.take("site.example") == task


def test_a_page_without_an_answer_comes_again_last() -> None:
    frontier = seeded()
    frontier.apply(page("", ["a", "b"]))
    frontier.settle()
    task = frontier.take("site.example")
    assert task == Task("page", f"{SITE}/a", f"{SITE}/", 1)
    frontier.apply(Page(f"{SITE}/a", f"{SITE}/", 1, "failed", 1.0, 1.0, reason="timeout", retry=True))
    urls = [task.url for task in frontier.unfinished()]
    assert urls == [f"{SITE}/b", f"{SITE}/a"]


def test_the_snapshot_puts_unfetched_pages_before_known_ones() -> None:
    frontier = seeded()
    frontier.apply(page("", ["a", "b"]))
    frontier.apply(page("a"))
    frontier.apply(Skip(f"{SITE}/b", f"{SITE}/", "time"))
    next_cycle = Frontier()
    next_cycle.seed([f"{SITE}/"])
    next_cycle.restore(decode_snapshot(encode_snapshot(frontier.snapshot())))
    assert [task.url for task in next_cycle.unfinished()] == [f"{SITE}/", f"{SITE}/b", f"{SITE}/a"]


names = st.sampled_from(["", "a", "b", "c", "d"])
record = st.one_of(
    st.builds(page, names, st.lists(names, max_size=3), st.lists(st.sampled_from("xyz"), max_size=2)),
    st.builds(picture, st.sampled_from("xyz"), names),
    st.builds(lambda name: Skip(f"{SITE}/{name}", "", "robots"), names),
)


@settings(max_examples=60)
@given(st.lists(record, max_size=12))
def test_a_replay_knows_what_the_live_frontier_knew(records: list[Record]) -> None:
    live = seeded()
    told = []
    for each in records:
        told += live.apply(each)
    live.settle()
    again = seeded()
    assert replay(again, records) == told
    again.settle()
    assert waiting(again) == waiting(live)
    assert again.snapshot() == live.snapshot()
    assert list(again.images()) == list(live.images())


@given(st.lists(record, max_size=12))
def test_what_has_a_record_is_not_asked_for_again(records: list[Record]) -> None:
    frontier = seeded()
    replay(frontier, records)
    frontier.settle()
    assert not set(waiting(frontier)) & {each.url for each in records}
    assert len(waiting(frontier)) == len(set(waiting(frontier)))
