"""Matches: lists with filters, and one by its id."""

from __future__ import annotations

from dataclasses import replace

from api_shim import schemas
from api_shim.endpoint import Answer, Call
from api_shim.filters import within
from api_shim.pagination import Order
from api_shim.present import Presenter
from core.errors import NotFound
from core.models import Match
from core.repo import matches
from core.repo.matches import MatchFilters

NEWEST_FIRST = Order("matches", (Match.created, Match.id), descending=True)


def web(call: Call) -> Answer:
    return page_of_web_matches(call, "/matches/web/")


def page_of_web_matches(call: Call, path: str, media_id: int | None = None) -> Answer:
    """A page of the account's web matches, all or those of a media (or of everything below a folder).

    Args:
        path: of the collection, below the API's base.
    """
    query = call.query()
    filters = MatchFilters(watermarked=query.boolean("watermarked"), exclusive=query.boolean("exclusive"))
    query.boolean("blacklist")  # no domain is blacklisted yet, so both values show the same
    created = query.dates("date")
    query.check()
    paginator = call.paginator(path)
    rows = within(matches.web_matches(call.account.id, replace(filters, media_id=media_id)), Match.created, created)
    with call.database.read() as tx:
        page = paginator.page(tx, rows, NEWEST_FIRST)
        return Answer(schemas.Matches(page.count, page.next, page.previous, Presenter(tx, call.links).matches(page.items)))


def show(call: Call) -> Answer:
    kind = call.request.path_params.get("kind")
    with call.database.read() as tx:
        match = matches.get(tx, call.account.id, call.number("match_id"))
        if kind not in (None, match.type):
            raise NotFound(f"no such {kind} match", code="match_not_found")
        return Answer(Presenter(tx, call.links).matches([match])[0])
