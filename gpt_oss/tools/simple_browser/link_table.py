"""The links of one page: numbers them in order of appearance, the same URL always by the same number."""

from gpt_oss.tools.simple_browser.links import domain_of, link_target
from gpt_oss.tools.simple_browser.text import link_markup


class LinkTable:
    """Link ids of a page at `base` (its URL, or what its `<base>` says)."""

    def __init__(self, base: str):
        """Start with no links."""
        self.base = base
        self._page_domain = domain_of(base)
        self._ids: dict[str, int] = {}
        self._targets: dict[str, str | None] = {}

    @property
    def urls(self) -> dict[str, str]:
        """Link ids, as strings, to URLs."""
        return {str(link_id): url for url, link_id in self._ids.items()}

    def markup(self, href: str, text: str) -> str | None:
        """Write the link to `href` with `text`; None if it leads nowhere that can be opened."""
        if href not in self._targets:
            self._targets[href] = link_target(href, self.base)
        url = self._targets[href]
        if url is None or not text:
            return None
        link_id = self._ids.setdefault(url, len(self._ids))
        domain = domain_of(url)
        return link_markup(link_id, text, domain if domain != self._page_domain else None)
