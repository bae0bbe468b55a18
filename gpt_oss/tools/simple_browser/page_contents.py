"""The page model and the ways into it: HTML, Markdown or plain text in, `PageContents` out.

A page is text with `【id†text】` links plus a table from link id to URL; what the text looks like in a view
(lines, numbers, header) is decided in `view`. Knows nothing of the network. Conversion is linear in the
input's size and takes seconds for 10 MB, so callers on an event loop run it in a thread.
"""

import re

from pydantic import BaseModel

from gpt_oss.tools.simple_browser.html_cleaning import clean_tree, parse_html
from gpt_oss.tools.simple_browser.html_text import tree_text
from gpt_oss.tools.simple_browser.link_table import LinkTable
from gpt_oss.tools.simple_browser.links import domain_of, last_path_part
from gpt_oss.tools.simple_browser.text import make_safe, one_line, tidy

EMPTY_PAGE = "The page is empty: it has no text."
MAX_TITLE_CHARS = 300
MAX_PAGE_BYTES = 8 * 2**20
"""The largest page that backends read; larger ones are answered with an error."""

_MARKDOWN_LINK = re.compile(
    r"(!?)\[([^\[\]\n]{0,500})\]"  # label
    r"\(<?([^()\s<>]{1,2000})>?(?:[ \t]+\"[^\"\n]{0,300}\")?\)"  # target, perhaps with a title
)
_MARKDOWN_TITLE = re.compile(r"^#{1,2}[ \t]+(\S.*)$", re.MULTILINE)


class Extract(BaseModel):
    """A passage behind a link: where the link leads and, if known, the line there that it is about."""

    url: str
    text: str
    title: str
    line_idx: int | None = None


class PageContents(BaseModel):
    """One page as text. `urls` maps link ids (decimal strings) to URLs, `snippets` link ids to passages.

    `error_message` set means that there is no page, only that message for the model.
    """

    url: str
    text: str
    title: str
    urls: dict[str, str]
    snippets: dict[str, Extract] | None = None
    error_message: str | None = None


def process_html(
    html: str,
    url: str,
    title: str | None = None,
    session: object = None,
    display_urls: bool = False,
) -> PageContents:
    """Convert `html` found at `url` into a page; never fails, whatever the markup.

    `title` wins over the document's own; `display_urls` puts the URL on top of the text. `session` is taken
    for compatibility with the public package and not used.
    """
    links = LinkTable(url)
    root = parse_html(html)
    own_title, body = "", ""
    if root is not None:
        own_title, tree = clean_tree(root, links)
        body = tree_text(tree)
    return _page(url, title or own_title, body, links, display_urls)


def process_markdown(text: str, url: str, title: str | None = None) -> PageContents:
    """Convert Markdown: the text as written, with inline links and images in this package's markup."""
    links = LinkTable(url)
    images = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal images
        mark, label, target = match.groups()
        if mark:
            images += 1
            return f"[Image {images - 1}: {label}]" if label else f"[Image {images - 1}]"
        return links.markup(target, one_line(label, MAX_TITLE_CHARS)) or match.group()

    body = _MARKDOWN_LINK.sub(replace, make_safe(text))
    heading = _MARKDOWN_TITLE.search(text)
    return _page(url, title or (heading.group(1) if heading else ""), body, links, display_urls=True)


def process_text(text: str, url: str, title: str | None = None) -> PageContents:
    """Take plain text (also JSON, XML, source code) as it is."""
    return _page(url, title or "", make_safe(text), LinkTable(url), display_urls=True)


def _page(url: str, title: str, body: str, links: LinkTable, display_urls: bool) -> PageContents:
    title = one_line(make_safe(title), MAX_TITLE_CHARS) or domain_of(url) or last_path_part(url)
    shown_url = f"\nURL: {one_line(make_safe(url), 2000)}\n" if display_urls else ""
    return PageContents(url=url, text=shown_url + (tidy(body) or EMPTY_PAGE), title=title, urls=links.urls)
