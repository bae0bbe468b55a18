"""Exa, You.com and SearXNG: their documented protocols, spoken by a local server, also when it goes wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web

from gpt_oss.tools.simple_browser import SimpleBrowserTool
from gpt_oss.tools.simple_browser.backend import (
    BACKENDS,
    Backend,
    BackendError,
    ExaBackend,
    SearxngBackend,
    YouComBackend,
    make_backend,
)
from gpt_oss.tools.simple_browser.direct_fetch import DirectFetcher
from gpt_oss.tools.simple_browser.http_requests import RetryPolicy
from tests.helpers.web_server import Handler, in_turn, page, redirect, serving
from tests.tools.browser.fakes import call

QUICK = RetryPolicy(attempts=3, first_pause=0.01, longest_pause=0.05)
PAGE_URL = "https://www.example.com/fetch1"
EXA_RESULTS = {
    "requestId": "b5947044c4b78efa9552a7c89b306d95",
    "results": [
        {
            "title": "One",
            "url": "https://one.org/a",
            "id": "x",
            "text": "long text",
            "summary": "Sum of one",
            "author": None,
        },
        {"title": None, "url": "https://two.org/b", "text": "only\n text", "summary": ""},
        {"title": "Again", "url": "https://one.org/a", "summary": "a duplicate"},
        {"title": "No URL"},
        "not an object",
        {"title": "Script", "url": "javascript:alert(1)"},
    ],
    "costDollars": {"total": 0.005},
}
YOU_RESULTS = {
    "results": {
        "web": [
            {
                "title": "Web 1",
                "url": "https://www.example.com/web1",
                "snippets": ["a <b>snip</b>", "x &amp; y"],
            },
            {"title": "Web 2", "url": "https://www.example.com/web2", "snippets": "one string"},
        ],
        "news": [{"title": "News 1", "url": "https://www.example.com/news1", "description": "what happened"}],
    },
    "metadata": {"query": "q"},
}
SEARXNG_RESULTS = {
    "query": "q",
    "number_of_results": 2,
    "results": [
        {"url": "https://a.org/1", "title": "A 【0†x】", "content": "content a", "engine": "e", "score": 1.0},
        {"url": "https://b.org/2", "title": "B", "content": None},
    ],
    "answers": [],
    "unresponsive_engines": [["google", "timeout"]],
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def answer(data: object) -> Handler:
    return page(json.dumps(data), "application/json")


class TestExa:
    async def test_search(self, session: aiohttp.ClientSession) -> None:
        bodies = []

        async def search(request: web.Request) -> web.Response:
            bodies.append((request.method, request.headers["x-api-key"], await request.json()))
            return web.json_response(EXA_RESULTS)

        async with serving({"/search": search}) as server:
            found = await ExaBackend(source="web", api_key="key", base_url=server.url).search("a query", 7, session)
        contents = {"text": True, "summary": True}
        assert bodies == [("POST", "key", {"query": "a query", "numResults": 7, "contents": contents})]
        assert found.title == "a query"
        assert found.urls == {"0": "https://one.org/a", "1": "https://two.org/b"}
        assert found.text.endswith(
            "# Search Results\n\n  * 【0†One†one.org】 Sum of one\n  * 【1†two.org†two.org】 only text"
        )

    async def test_fetch(self, session: aiohttp.ClientSession) -> None:
        bodies = []

        async def contents(request: web.Request) -> web.Response:
            bodies.append((request.method, await request.json()))
            result = {"url": PAGE_URL, "title": "Fetch 1", "text": "<div><p>Some <a href='x'>text</a></p></div>"}
            return web.json_response({"results": [result], "statuses": [{"id": PAGE_URL, "status": "success"}]})

        async with serving({"/contents": contents}) as server:
            backend = ExaBackend(api_key="key", base_url=server.url)
            fetched = await backend.fetch(PAGE_URL, session)
            source = await backend.fetch(f"view-source:{PAGE_URL}", session)
        assert bodies == [("POST", {"urls": [PAGE_URL], "text": {"includeHtmlTags": True}})] * 2
        assert fetched.title == "Fetch 1"
        assert fetched.text == f"\nURL: {PAGE_URL}\nSome 【0†text】"
        assert source.text.endswith("<div><p>Some <a href='x'>text</a></p></div>")

    @pytest.mark.parametrize("results", [[], [{"title": "x"}], [{"text": None}]])
    async def test_nothing_there(self, session: aiohttp.ClientSession, results: list[dict]) -> None:
        async with serving({"/contents": answer({"results": results})}) as server:
            with pytest.raises(BackendError, match="no contents"):
                await ExaBackend(api_key="k", base_url=server.url).fetch(PAGE_URL, session)

    async def test_a_page_that_is_too_large(self, session: aiohttp.ClientSession) -> None:
        async with serving({"/contents": answer({"results": [{"text": "x" * 10_000_000}]})}) as server:
            with pytest.raises(BackendError, match="larger than 8 MB"):
                await ExaBackend(api_key="k", base_url=server.url).fetch(PAGE_URL, session)


class TestYouCom:
    async def test_search(self, session: aiohttp.ClientSession) -> None:
        async with serving({"/v1/search": answer(YOU_RESULTS)}) as server:
            found = await YouComBackend(source="web", api_key="key", base_url=server.url).search("q & r", 10, session)
            (request,) = server.requests
        assert request.method == "GET"
        assert dict(request.query) == {"query": "q & r", "count": "10"}
        assert request.headers["x-api-key"] == "key"
        assert found.urls == {
            str(i): f"https://www.example.com/{name}" for i, name in enumerate(("web1", "web2", "news1"))
        }
        assert "【0†Web 1†www.example.com】 a snip … x & y\n" in found.text
        assert found.text.endswith("【2†News 1†www.example.com】 what happened")

    @pytest.mark.parametrize(
        "results", [{"web": YOU_RESULTS["results"]["web"]}, {"news": YOU_RESULTS["results"]["news"]}]
    )
    async def test_one_kind_only(self, session: aiohttp.ClientSession, results: dict) -> None:
        async with serving({"/v1/search": answer({"results": results})}) as server:
            found = await YouComBackend(api_key="key", base_url=server.url).search("q", 1, session)
        assert len(found.urls) == 1

    async def test_fetch(self, session: aiohttp.ClientSession) -> None:
        data = [
            {"url": PAGE_URL, "title": "Fetch Result 1", "html": "<div>Fetch Result 1 text</div>", "markdown": None}
        ]
        async with serving({"/v1/contents": answer(data)}) as server:
            fetched = await YouComBackend(api_key="key", base_url=server.url).fetch(PAGE_URL, session)
            (request,) = server.requests
        assert request.method == "GET"
        assert dict(request.query) == {"urls": PAGE_URL, "livecrawl_formats": "html"}
        assert (fetched.title, fetched.text) == ("Fetch Result 1", f"\nURL: {PAGE_URL}\nFetch Result 1 text")

    @pytest.mark.parametrize("data", [[], [{"title": "x"}], [{"html": None}]])
    async def test_nothing_there(self, session: aiohttp.ClientSession, data: list[dict]) -> None:
        async with serving({"/v1/contents": answer(data)}) as server:
            with pytest.raises(BackendError, match="no contents"):
                await YouComBackend(api_key="key", base_url=server.url).fetch(PAGE_URL, session)


class TestSearxng:
    async def test_search(self, session: aiohttp.ClientSession) -> None:
        async with serving({"/sub/search": answer(SEARXNG_RESULTS)}) as server:
            found = await SearxngBackend(f"{server.url}/sub/").search("q", 10, session)
            (request,) = server.requests
        assert dict(request.query) == {"q": "q", "format": "json"}
        assert found.urls == {"0": "https://a.org/1", "1": "https://b.org/2"}
        assert found.text.endswith("  * 【0†A 〖0‡x〗†a.org】 content a\n  * 【1†B†b.org】")

    async def test_json_that_is_not_enabled(self, session: aiohttp.ClientSession) -> None:
        async with serving({"/search": page("Forbidden", status=403)}) as server:
            with pytest.raises(BackendError, match=r"403.*search\.formats"):
                await SearxngBackend(server.url).search("q", 10, session)

    async def test_pages_come_from_the_web_itself(self, session: aiohttp.ClientSession) -> None:
        async with serving({"/p": page("<p>direct"), "/r": redirect("/p")}) as server:
            fetcher = DirectFetcher(allowed_networks=["127.0.0.0/8"])
            fetched = await SearxngBackend(server.url, fetcher=fetcher).fetch(f"{server.url}/r", session)
            assert fetched.text == f"\nURL: {server.url}/p\ndirect"
            with pytest.raises(BackendError, match="not on the public web"):
                await SearxngBackend(server.url).fetch(f"{server.url}/p", session)
            assert server.paths == ["/r", "/p"]

    async def test_pages_that_cannot_be_shown_are_one_line(self) -> None:
        handlers = {
            "/pdf": page(b"%PDF-1.7", "application/pdf"),
            "/loop": redirect("/loop"),
            "/big": page(b"x" * 10**7),
        }
        async with serving(handlers) as server:
            fetcher = DirectFetcher(allowed_networks=["127.0.0.0/8"])
            tool = SimpleBrowserTool(SearxngBackend(server.url, fetcher=fetcher))
            for path, named in [("pdf", "PDF"), ("loop", "redirect loop"), ("big", "larger than 8 MB"), ("no", "404")]:
                reply = await call(tool, "browser.open", {"id": f"{server.url}/{path}"})
                assert reply.startswith("Error: ")
                assert named in reply
                assert "\n" not in reply


Make = Callable[..., Backend]
ALL = [
    pytest.param(lambda url, **o: ExaBackend(api_key="k", base_url=url, **o), "/search", id="exa"),
    pytest.param(lambda url, **o: YouComBackend(api_key="k", base_url=url, **o), "/v1/search", id="youcom"),
    pytest.param(lambda url, **o: SearxngBackend(base_url=url, **o), "/search", id="searxng"),
]


@pytest.mark.parametrize(("make", "path"), ALL)
class TestEveryProvider:
    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            ("<html>Maintenance</html>", "text/html"),
            ('{"results": [', "application/json"),
            ("", "application/json"),
            (b"\xff\xfe\xff", "application/json"),
            ("null", "application/json"),
            ("[]", "application/json"),
            ("{}", "application/json"),
            ('{"results": null}', "application/json"),
            ('{"results": 3}', "application/json"),
            ('{"results": {"web": 1, "news": "x"}}', "application/json"),
            ('{"results": []}', "application/json"),
            ('{"results": [{"url": 5}]}', "application/json"),
        ],
    )
    async def test_answers_that_make_no_sense(
        self,
        session: aiohttp.ClientSession,
        make: Make,
        path: str,
        body: str | bytes,
        content_type: str,
    ) -> None:
        async with serving({path: page(body, content_type)}) as server:
            with pytest.raises(BackendError) as failure:
                await make(server.url, retry=QUICK).search("q", 10, session)
        assert "\n" not in str(failure.value)

    @pytest.mark.parametrize(
        ("status", "asked"), [(400, 1), (401, 1), (403, 1), (404, 1), (429, 3), (500, 3), (503, 3)]
    )
    async def test_errors(self, session: aiohttp.ClientSession, make: Make, path: str, status: int, asked: int) -> None:
        async with serving({path: page('{"error": "no"}', "application/json", status)}) as server:
            with pytest.raises(BackendError, match=f"HTTP {status}"):
                await make(server.url, retry=QUICK).search("q", 10, session)
            assert len(server.requests) == asked

    async def test_a_busy_provider_is_asked_again(self, session: aiohttp.ClientSession, make: Make, path: str) -> None:
        entries = {"results": EXA_RESULTS["results"]} if "v1" not in path else YOU_RESULTS
        answers = in_turn(lambda: web.Response(status=502), lambda: web.json_response(entries))
        async with serving({path: answers}) as server:
            assert (await make(server.url, retry=QUICK).search("q", 10, session)).urls

    async def test_a_slow_provider(self, session: aiohttp.ClientSession, make: Make, path: str) -> None:
        async def wait(_: web.Request) -> web.Response:
            await asyncio.sleep(30)
            return web.Response()

        async with serving({path: wait}) as server:
            with pytest.raises(BackendError, match=r"within 0\.2 s"):
                await make(server.url, timeout=0.2).search("q", 10, session)

    async def test_redirects_on_the_same_host_are_followed(
        self, session: aiohttp.ClientSession, make: Make, path: str
    ) -> None:
        entries = {"results": EXA_RESULTS["results"]} if "v1" not in path else YOU_RESULTS
        async with serving({path: redirect("/moved", 308), "/moved": answer(entries)}) as server:
            assert (await make(server.url).search("q", 10, session)).urls
            first, second = server.requests
        assert (first.method, first.headers.get("x-api-key")) == (second.method, second.headers.get("x-api-key"))

    async def test_a_key_is_not_sent_to_another_host(
        self, session: aiohttp.ClientSession, make: Make, path: str
    ) -> None:
        async with (
            serving({path: answer({})}, "127.0.0.2") as other,
            serving({path: redirect(other.url + path)}) as server,
        ):
            with pytest.raises(BackendError, match="another host"):
                await make(server.url).search("q", 10, session)
            assert other.requests == []

    async def test_a_redirect_loop(self, session: aiohttp.ClientSession, make: Make, path: str) -> None:
        async with serving({path: redirect(path)}) as server:
            with pytest.raises(BackendError, match="HTTP 302"):
                await make(server.url).search("q", 10, session)
            assert len(server.requests) == 6

    async def test_nobody_there(self, session: aiohttp.ClientSession, make: Make, path: str) -> None:
        async with serving({}) as server:
            pass
        with pytest.raises(BackendError, match="cannot be reached"):
            await make(server.url).search("q", 10, session)

    async def test_through_the_tool(self, make: Make, path: str) -> None:
        async with serving({path: page("oops", status=500)}) as server:
            reply = await call(SimpleBrowserTool(make(server.url, retry=QUICK)), "browser.search", {"query": "q"})
        assert reply.startswith("Error: ")
        assert "\n" not in reply


@pytest.mark.parametrize(("backend", "variable"), [(ExaBackend, "EXA_API_KEY"), (YouComBackend, "YDC_API_KEY")])
class TestKeys:
    async def test_a_missing_key_is_one_line_naming_the_variable(
        self, backend: type[ExaBackend], variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(variable, raising=False)
        tool = SimpleBrowserTool(backend(source="web"))
        for function, arguments in [("search", {"query": "q"}), ("open", {"id": "https://a.org"})]:
            reply = await call(tool, f"browser.{function}", arguments)
            assert variable in reply
            assert "\n" not in reply

    async def test_the_variable_is_read_at_the_call(
        self, backend: type[ExaBackend], variable: str, monkeypatch: pytest.MonkeyPatch, session: aiohttp.ClientSession
    ) -> None:
        async with serving({}) as server:
            made = backend(source="web", base_url=server.url)
            monkeypatch.setenv(variable, "from-environment")
            with pytest.raises(BackendError, match="HTTP 404"):
                await made.search("q", 1, session)
            assert server.requests[0].headers["x-api-key"] == "from-environment"


def test_backends_by_name(tmp_path: object) -> None:
    options: dict[str, dict] = {"local": {"root": tmp_path}}
    for name, kind in BACKENDS.items():
        assert isinstance(make_backend(name, **options.get(name, {})), kind)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="youcom, exa, searxng, local"):
        make_backend("bing")
