"""What one conversation has seen: every view by its cursor, every page by its URL.

Cursors count up from 0 and keep their meaning. Pages are kept once each; when their texts together exceed the
budget, those looked at longest ago are dropped, and the caller fetches a dropped page again from its URL.
"""

from typing import Literal

from pydantic import BaseModel, Field

from gpt_oss.errors import ToolError
from gpt_oss.tools.simple_browser.page_contents import PageContents

MAX_KEPT_CHARS = 32_000_000
Kind = Literal["search", "page", "find"]


class Visit(BaseModel):
    """One view: which page (a key of `BrowserState.pages`), what kind; matches of `find`: of which visit."""

    key: str
    kind: Kind
    url: str
    title: str
    source: int | None = None


class BrowserState(BaseModel):
    """All visits, indexed by cursor, and the kept pages, the one used last at the end."""

    visits: list[Visit] = Field(default_factory=list)
    pages: dict[str, PageContents] = Field(default_factory=dict)

    @property
    def current_cursor(self) -> int:
        """The newest cursor; -1 before the first view."""
        return len(self.visits) - 1

    def add(self, page: PageContents, kind: Kind, key: str = "", source: int | None = None) -> int:
        """Record a view of `page` and return its cursor. A page's `key` is its URL, others get their own."""
        cursor = len(self.visits)
        visit = Visit(key=key or f"{kind}:{cursor}", kind=kind, url=page.url, title=page.title, source=source)
        self.visits.append(visit)
        self.keep(visit.key, page)
        return cursor

    def keep(self, key: str, page: PageContents) -> None:
        """Store `page` as the one used last, dropping the oldest others beyond the budget."""
        self.pages.pop(key, None)
        self.pages[key] = page
        total = sum(len(kept.text) for kept in self.pages.values())
        while total > MAX_KEPT_CHARS and len(self.pages) > 1:
            oldest = next(iter(self.pages))
            total -= len(self.pages.pop(oldest).text)

    def page(self, key: str) -> PageContents | None:
        """The kept page of `key`, now the one used last; None if it is not kept (any more)."""
        page = self.pages.pop(key, None)
        if page is not None:
            self.pages[key] = page
        return page

    def cursor(self, cursor: int, skip_find: bool = False) -> int:
        """Check `cursor`; -1 is the newest visit, or with `skip_find` the one whose matches it shows.

        Raises ToolError naming the cursors there are.
        """
        if not self.visits:
            raise ToolError("there is no page yet; search for something or open a URL first")
        if cursor == -1:
            newest = self.visits[-1]
            return newest.source if skip_find and newest.source is not None else self.current_cursor
        if not 0 <= cursor <= self.current_cursor:
            raise ToolError(f"there is no page [{cursor}]; the cursors so far are 0 to {self.current_cursor}")
        return cursor
