"""The tool as the model meets it: calls in, views or one line of error out."""

import json
import re

import aiohttp
import pytest
from openai_harmony import ToolNamespaceConfig

from gpt_oss.tokenizer import get_tokenizer
from gpt_oss.tools.simple_browser import SimpleBrowserTool
from gpt_oss.tools.simple_browser.page_contents import PageContents
from gpt_oss.tools.simple_browser.search_results import SearchResult
from tests.tools.browser.fakes import FakeWeb, call

HOME = "https://example.com/"
SPORT = "https://example.com/sport"
LONG = "https://example.com/long"
OTHER = "https://other.org/x"
LONG_LINES = 900
NAMED = "sources=local (default: local)"


def results(query: str) -> list[SearchResult]:
    return [
        SearchResult(f"https://{query}.org/first", f"First of {query}", "a snippet of the first"),
        SearchResult(f"https://{query}.org/second", f"Second of {query}", "another snippet " * 20),
    ]


@pytest.fixture
def web() -> FakeWeb:
    pages: dict[str, str | PageContents | Exception] = {
        HOME: f'<title>Home</title><h1>News</h1><p>Read <a href="/sport">sport</a>, <a href="{OTHER}">other</a>.',
        SPORT: "<title>Sport</title><p>The cup final was won by the home team in the last minute of extra time after "
        "a long and quite <a href='/q'>memorable evening</a> for all.</p>",
        LONG: "<title>Long</title>" + "".join(f"<p>paragraph {i} needle{i % 7}</p>" for i in range(LONG_LINES // 2)),
        OTHER: "<p>other page",
        "https://cats.org/first": "<title>Cats</title>first cat",
        "https://dogs.org/first": "<title>Dogs</title>first dog",
        "https://empty.org": "",
        "view-source:" + HOME: PageContents(url="view-source:" + HOME, text="<title>Home", title="Home", urls={}),
    }
    return FakeWeb(pages, results)


@pytest.fixture
def tool(web: FakeWeb) -> SimpleBrowserTool:
    return SimpleBrowserTool(backend=web)


def header(view: str) -> tuple[int, str, int, int, int]:
    """(cursor, title, first line, last line, last line of the page) of a view."""
    found = re.match(r"\[(\d+)\] (.*)\n\*\*viewing lines \[(\d+) - (\d+)\] of (\d+)\*\*\n\nL", view)
    assert found, view
    return int(found[1]), found[2], int(found[3]), int(found[4]), int(found[5])


async def test_a_view(tool: SimpleBrowserTool) -> None:
    assert await call(tool, "browser.open", {"id": HOME}) == (
        "[0] Home (example.com)\n"
        "**viewing lines [0 - 4] of 4**\n\n"
        "L0: \n"
        "L1: URL: https://example.com/\n"
        "L2: # News\n"
        "L3: \n"
        "L4: Read 【0†sport】, 【1†other†other.org】."
    )


async def test_search_open_find_in_a_row(tool: SimpleBrowserTool, web: FakeWeb) -> None:
    found = await call(tool, "browser.search", {"query": "cats"})
    assert header(found)[:2] == (0, "cats")
    assert "  * 【0†First of cats†cats.org】 a snippet of the first" in found
    opened = await call(tool, "browser.open", {"id": 0})
    assert header(opened)[:2] == (1, "Cats (cats.org)")
    matches = await call(tool, "browser.find", {"pattern": "FIRST  cat"})
    assert header(matches)[0] == 2
    assert "# 【0†match at L2】\nL1: first cat" in matches
    again = await call(tool, "browser.open", {"id": 0})
    assert header(again)[:2] == (3, "Cats (cats.org)")
    assert web.fetched == ["https://cats.org/first"]


async def test_the_link_of_an_earlier_search(tool: SimpleBrowserTool) -> None:
    await call(tool, "browser.search", {"query": "cats"})
    await call(tool, "browser.search", {"query": "dogs"})
    assert "first cat" in await call(tool, "browser.open", {"cursor": 0, "id": 0})
    assert "first dog" in await call(tool, "browser.open", {"cursor": 1, "id": 0})


async def test_a_string_of_digits_is_a_link_and_any_other_a_url(tool: SimpleBrowserTool) -> None:
    await call(tool, "browser.open", {"id": HOME})
    assert "Sport" in await call(tool, "browser.open", {"id": "0", "cursor": 0})
    assert "other page" in await call(tool, "browser.open", {"id": OTHER})
    assert "Home" in await call(tool, "browser.open", {"id": HOME, "cursor": 1})


async def test_a_path_is_relative_to_the_page(tool: SimpleBrowserTool) -> None:
    await call(tool, "browser.open", {"id": HOME})
    assert "Sport" in await call(tool, "browser.open", {"id": "/sport"})


async def test_whole_numbers_may_be_written_as_floats(tool: SimpleBrowserTool, web: FakeWeb) -> None:
    await call(tool, "browser.search", '{"query": "cats", "topn": 1.0, "source": "web"}')
    assert web.searched == [("cats", 1)]
    assert "first cat" in await call(tool, "browser.open", '{"id": 0.0, "cursor": -1.0}')


async def test_topn_is_limited(tool: SimpleBrowserTool, web: FakeWeb) -> None:
    await call(tool, "browser.search", {"query": "cats", "topn": 500})
    assert web.searched == [("cats", 20)]
    assert SimpleBrowserTool(backend=web, max_search_results=3).max_search_results == 3


BAD_CALLS = [
    ("browser.search", {"q": "x"}, "'query'|\"q\""),
    ("browser.search", {"query": "x", "recency_days": 3}, "recency_days"),
    ("browser.search", {"query": "x", "topn": 0}, "topn"),
    ("browser.search", {"query": "x", "topn": "ten"}, "topn"),
    ("browser.search", {"query": "x", "source": None}, "source"),
    ("browser.search", {"query": "  "}, "query"),
    ("browser.search", {"query": ["x"]}, "query"),
    ("browser.open", {"id": None}, "id"),
    ("browser.open", {"id": True}, "id"),
    ("browser.open", {"id": 1.5}, "id"),
    ("browser.open", {"id": 0, "loc": "5"}, "loc"),
    ("browser.open", {"id": 99}, "99"),
    ("browser.open", {"id": 0, "cursor": 7}, r"\[7\]"),
    ("browser.open", {"id": 0, "cursor": -2}, r"\[-2\]"),
    ("browser.open", {"loc": 5000}, "5000"),
    ("browser.open", {"id": "https://nowhere.org/"}, "nowhere"),
    ("browser.open", {"view_source": "yes"}, "view_source"),
    ("browser.find", {}, "pattern"),
    ("browser.find", {"pattern": ""}, "pattern"),
    ("browser.find", {"pattern": "not on the page"}, "not on the page"),
    ("browser.search.foo", {"query": "x"}, "browser.search.foo"),
    ("browser", {"query": "x"}, "browser.open"),
    ("browser.", {}, "browser.open"),
    ("browser.click", {"id": 0}, "browser.click"),
    ("browser.open", "[1]", "object"),
    ("browser.open", "https://example.com", "JSON"),
    ("browser.open", '{"id": 1e999}', "id"),
    ("browser.open", "[" * 100_000, "JSON"),
]


@pytest.mark.parametrize(("function", "arguments", "named"), BAD_CALLS)
async def test_a_bad_call_is_answered_in_one_line(
    tool: SimpleBrowserTool, function: str, arguments: object, named: str
) -> None:
    await call(tool, "browser.open", {"id": HOME})
    answer = await call(tool, function, arguments, channel="commentary")
    assert "\n" not in answer
    assert re.search(named, answer), answer
    assert len(answer) < 700
    assert header(await call(tool, "browser.open", {}))[0] == 1, "a failed call takes no cursor"


async def test_nothing_is_open_yet(tool: SimpleBrowserTool) -> None:
    for function, arguments in [("open", {"id": 0}), ("open", {}), ("find", {"pattern": "x"}), ("open", {"cursor": 0})]:
        answer = await call(tool, f"browser.{function}", arguments)
        assert "\n" not in answer
        assert "no page yet" in answer


@pytest.mark.parametrize(
    "failure",
    [
        aiohttp.ClientConnectionError("refused\nby peer"),
        TimeoutError(),
        RuntimeError("line one\nline two"),
        ValueError(),
        KeyError("x"),
        UnicodeError("bad"),
    ],
)
async def test_whatever_a_backend_raises_is_one_line(failure: Exception) -> None:
    tool = SimpleBrowserTool(backend=FakeWeb({HOME: failure}))
    answer = await call(tool, "browser.open", {"id": HOME})
    assert answer.startswith("Error: ")
    assert "\n" not in answer


async def test_a_page_that_is_an_error(web: FakeWeb, tool: SimpleBrowserTool) -> None:
    web.pages[HOME] = PageContents(url=HOME, text="", title="", urls={}, error_message="gone\nfor good")
    assert await call(tool, "browser.open", {"id": HOME}) == "Error: gone for good"


async def test_an_empty_page_says_so(web: FakeWeb, tool: SimpleBrowserTool) -> None:
    assert "The page is empty" in await call(tool, "browser.open", {"id": "https://empty.org"})
    web.pages[HOME] = PageContents(url=HOME, text=" \n", title="Home", urls={})
    assert "The page is empty" in await call(tool, "browser.open", {"id": HOME})


class TestScrolling:
    async def test_a_view_fits_the_budget_and_the_next_goes_on(self, web: FakeWeb) -> None:
        tool = SimpleBrowserTool(backend=web, view_tokens=100)
        encode = get_tokenizer().encode_ordinary
        view = await call(tool, "browser.open", {"id": LONG})
        _, _, first, last, end = header(view)
        assert first == 0
        shown = view.split("\n\n", 1)[1]
        assert len(encode(shown)) <= 100
        following = await call(tool, "browser.open", {"loc": last + 1})
        cursor, _, first, _, _ = header(following)
        assert (cursor, first) == (1, last + 1)
        one_more = f"{shown}\n{following.split(chr(10) * 2, 1)[1].split(chr(10))[0]}"
        assert len(encode(one_more)) > 100
        assert web.fetched == [LONG]
        assert end > LONG_LINES - 2

    async def test_num_lines(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.open", {"id": LONG})
        assert header(await call(tool, "browser.open", {"loc": 5, "num_lines": 3}))[2:4] == (5, 7)
        assert header(await call(tool, "browser.open", {"loc": 5, "num_lines": 1}))[2:4] == (5, 5)
        *_, last, end = header(await call(tool, "browser.open", {"loc": 5, "num_lines": 100_000}))
        assert last < end, "the token budget holds whatever the model asks for"

    async def test_the_last_line_and_past_it(self, tool: SimpleBrowserTool) -> None:
        *_, end = header(await call(tool, "browser.open", {"id": LONG}))
        assert header(await call(tool, "browser.open", {"loc": end}))[2:] == (end, end, end)
        answer = await call(tool, "browser.open", {"loc": end + 1})
        assert f"{end + 1} lines" in answer

    async def test_cursors_stay_valid(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.open", {"id": HOME})
        for number in range(1, 6):
            assert header(await call(tool, "browser.open", {"id": LONG, "loc": number}))[0] == number
        assert header(await call(tool, "browser.open", {"cursor": 0}))[:2] == (6, "Home (example.com)")

    async def test_a_tiny_budget_still_shows_a_line(self, web: FakeWeb) -> None:
        tool = SimpleBrowserTool(backend=web, view_tokens=1)
        assert header(await call(tool, "browser.open", {"id": LONG}))[2:4] == (0, 0)


class TestFind:
    async def test_a_phrase_across_the_wrap_and_a_link(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.open", {"id": SPORT})
        for pattern in ("last minute of extra time after a long and quite memorable evening", "The Cup\nFinal"):
            assert "match at L2" in await call(tool, "browser.find", {"pattern": pattern})

    async def test_twice_without_a_cursor_searches_the_page(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.open", {"id": SPORT})
        assert "match at L2" in await call(tool, "browser.find", {"pattern": "home team"})
        assert "match at L2" in await call(tool, "browser.find", {"pattern": "extra time"})
        answer = await call(tool, "browser.find", {"pattern": "match at"})
        assert "does not occur on page [0]" in answer

    async def test_in_a_list_of_matches_means_its_page(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.open", {"id": SPORT})
        await call(tool, "browser.open", {"id": HOME})
        await call(tool, "browser.find", {"pattern": "home team", "cursor": 0})
        assert "of `extra time` in `Sport`" in await call(tool, "browser.find", {"pattern": "extra time", "cursor": 2})

    async def test_a_match_opens_where_it_is(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.open", {"id": LONG})
        matches = await call(tool, "browser.find", {"pattern": "paragraph 300 needle"})
        line = int(re.search(r"match at L(\d+)", matches)[1])  # type: ignore[index]
        assert header(await call(tool, "browser.open", {"id": 0}))[2] == line - 4
        view = await call(tool, "browser.open", {"cursor": 1, "id": 0, "loc": line, "num_lines": 1})
        assert view.endswith(f"L{line}: paragraph 300 needle6")

    async def test_scrolling_after_find_scrolls_the_page(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.open", {"id": LONG})
        await call(tool, "browser.find", {"pattern": "paragraph 300 needle"})
        assert header(await call(tool, "browser.open", {"loc": 500}))[1:3] == ("Long (example.com)", 500)

    async def test_on_search_results(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.search", {"query": "cats"})
        assert "match at" in await call(tool, "browser.find", {"pattern": "another snippet"})
        again = await call(tool, "browser.open", {"id": 0})
        assert header(again)[1] == "cats"


async def test_view_source(tool: SimpleBrowserTool, web: FakeWeb) -> None:
    await call(tool, "browser.open", {"id": HOME})
    view = await call(tool, "browser.open", {"view_source": True})
    assert "L0: <title>Home" in view
    assert web.fetched == [HOME, "view-source:" + HOME]
    assert tool.normalize_citations("x【1†L0】")[1][0]["url"] == HOME
    await call(tool, "browser.search", {"query": "cats"})
    assert "no URL to open" in await call(tool, "browser.open", {"view_source": True})


async def test_fragments_do_not_fetch_again(tool: SimpleBrowserTool, web: FakeWeb) -> None:
    await call(tool, "browser.open", {"id": HOME + "#top"})
    await call(tool, "browser.open", {"id": HOME})
    assert web.fetched == [HOME]


class TestCitations:
    async def test_of_pages_matches_and_results(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.search", {"query": "cats"})
        await call(tool, "browser.open", {"id": SPORT})
        await call(tool, "browser.find", {"pattern": "final"})
        text, annotations, partial = tool.normalize_citations(
            "a【1†L2-L3】 b【2†L1】 c【0†L4】 d【0†L6-L7】 e【9†L1】 f"
        )
        link = "([example.com](https://example.com/sport))"
        first, second = "([cats.org](https://cats.org/first))", "([cats.org](https://cats.org/second))"
        assert text == f"a {link} b {link} c {first} d {second} e【9†L1】 f"
        assert [annotation["url"] for annotation in annotations] == [
            *(SPORT, SPORT, "https://cats.org/first", "https://cats.org/second")
        ]
        assert [annotation["title"] for annotation in annotations] == [
            "Sport",
            "Sport",
            "First of cats",
            "Second of cats",
        ]
        assert not partial

    async def test_any_line_of_a_search_page_resolves(self, tool: SimpleBrowserTool) -> None:
        await call(tool, "browser.search", {"query": "cats"})
        for citation in ("【0†L0】", "【0†L999】", "【0†source】"):
            assert tool.normalize_citations(citation)[1][0]["url"].startswith("https://cats.org/")


def test_the_schema_is_openai_harmonys_with_the_source_named(web: FakeWeb) -> None:
    web.source = "local"
    config = SimpleBrowserTool(backend=web).tool_config
    plain = ToolNamespaceConfig.browser()
    assert config.tools == plain.tools
    assert config.name == "browser"
    assert config.description == plain.description.replace(
        "sources=web (default: web)", "sources=local (default: local)"
    )
    assert NAMED in config.description


async def test_the_state_survives_json(tool: SimpleBrowserTool, web: FakeWeb) -> None:
    await call(tool, "browser.search", {"query": "cats"})
    await call(tool, "browser.open", {"id": HOME})
    saved = json.loads(json.dumps(tool.get_tool_state()))
    for state in (saved, saved["tool_state"]):
        copy = SimpleBrowserTool(backend=web, tool_state=state)
        assert copy.get_tool_state() == tool.get_tool_state()
        assert "first cat" in await call(copy, "browser.open", {"cursor": 0, "id": 0})
    assert header(await call(tool, "browser.open", {}))[0] == 2, "the copies are copies"


async def test_a_dropped_page_is_fetched_again(tool: SimpleBrowserTool, web: FakeWeb) -> None:
    for url in (HOME, LONG):
        web.pages[url] = PageContents(url=url, text="x" * 17_000_000, title=url[-5:], urls={})
    await call(tool, "browser.search", {"query": "cats"})
    await call(tool, "browser.open", {"id": HOME})
    await call(tool, "browser.open", {"id": LONG})
    assert list(tool.tool_state.pages) == [LONG], "32 million characters are kept"
    assert header(await call(tool, "browser.open", {"cursor": 1}))[:2] == (3, ".com/ (example.com)")
    assert web.fetched == [HOME, LONG, HOME]
    answer = await call(tool, "browser.open", {"cursor": 0, "id": 0})
    assert "\n" not in answer
    assert "search again" in answer
    assert tool.normalize_citations("【1†L1】")[1][0]["url"] == HOME


def test_tokenizers_by_name(web: FakeWeb) -> None:
    with pytest.raises(ValueError, match="no-such-encoding"):
        SimpleBrowserTool(backend=web, encoding_name="no-such-encoding")
