"""What the model is shown of a page: a header, then numbered lines, as many as fit the token budget.

Pure functions; `count_tokens` is the only thing they know of a tokenizer. Only text that can be shown is
ever counted, so the cost of a view does not grow with the page.
"""

from collections.abc import Callable, Sequence

from gpt_oss.tools.simple_browser.links import domain_of
from gpt_oss.tools.simple_browser.page_contents import PageContents


def render_view(
    page: PageContents,
    cursor: int,
    spans: Sequence[tuple[int, int]],
    first: int,
    wanted: int,
    max_tokens: int,
    count_tokens: Callable[[str], int],
) -> str:
    """Show the lines `spans` of `page` from line `first` on: `wanted` of them, or all if `wanted` is below 1.

    The numbered lines stay within `max_tokens` (the header comes on top); one line is always shown.
    """
    most = min(wanted, max_tokens) if wanted > 0 else max_tokens  # a numbered line is more than one token
    numbered = [
        f"L{first + offset}: {page.text[start:end]}" for offset, (start, end) in enumerate(spans[first : first + most])
    ]
    shown = numbered[: fitting(numbered, max_tokens, count_tokens)]
    domain = domain_of(page.url)
    title = f"{page.title} ({domain})" if domain else page.title
    last = first + len(shown) - 1
    header = f"[{cursor}] {title}\n**viewing lines [{first} - {last}] of {len(spans) - 1}**\n\n"
    return header + "\n".join(shown)


def fitting(lines: Sequence[str], max_tokens: int, count_tokens: Callable[[str], int]) -> int:
    """How many of the first `lines`, joined by newlines, fit `max_tokens`; at least one.

    Lines are counted one by one up to the budget; the joined text may merge tokens across line ends, so the
    number is then moved to where the joined text just fits.
    """
    count = total = 0
    while count < len(lines) and total <= max_tokens:
        total += count_tokens(lines[count] + "\n")
        count += 1
    while count < len(lines) and count_tokens("\n".join(lines[: count + 1])) <= max_tokens:
        count += 1
    while count > 1 and count_tokens("\n".join(lines[:count])) > max_tokens:
        count -= 1
    return max(count, 1)
