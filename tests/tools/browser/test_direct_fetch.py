"""Direct fetches against real servers on the loopback interface, and what must never be connected to."""

import asyncio
import gzip
import socket
import time

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from gpt_oss.tools.simple_browser.backend import BackendError
from gpt_oss.tools.simple_browser.direct_fetch import DirectFetcher
from gpt_oss.tools.simple_browser.http_requests import RetryPolicy
from tests.helpers.web_server import in_turn, page, redirect, serving

QUICK = RetryPolicy(attempts=3, first_pause=0.01, longest_pause=0.05)
TEST_HOST = "127.0.0.1/32"  # the one private address that the tests allow; 127.0.0.2 stays forbidden


class FakeResolver(AbstractResolver):
    """Name resolution under the test's control: each question takes the next answer, the last one for ever."""

    def __init__(self, *answers: str):
        self.answers = list(answers)
        self.questions: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.questions.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in answer.split()
        ]

    async def close(self) -> None:
        pass


def fetcher(**options: object) -> DirectFetcher:
    """A fetcher that may visit the test server."""
    settings: dict = {"allowed_networks": [TEST_HOST], "retry": QUICK, "timeout": 10.0} | options
    return DirectFetcher(**settings)


async def text_of(url: str, **options: object) -> str:
    return (await fetcher(**options).page(url)).text


async def test_a_page() -> None:
    async with serving({"/p": page("<title>T</title><p>héllo <a href='q'>x</a>")}) as server:
        fetched = await fetcher().page(f"{server.url}/p#part")
        assert (fetched.title, fetched.url) == ("T", f"{server.url}/p")
        assert fetched.text == f"\nURL: {server.url}/p\nhéllo 【0†x】"
        assert fetched.urls == {"0": f"{server.url}/q"}
        assert server.requests[0].headers["User-Agent"].startswith("gpt-oss/")


class TestAddresses:
    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "0", "0.0.0.0"),
            *("localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"),
            *("127.0.0.1.", "localhost.", "LOCALHOST", "１２７.０.０.１", "127。0。0。1", "user:secret@127.0.0.1"),
        ],
    )
    async def test_loopback_is_refused_however_it_is_written(self, host: str) -> None:
        async with serving({"/": page("secret")}) as server:
            port = server.url.rpartition(":")[2]
            with pytest.raises(BackendError) as refused:
                await DirectFetcher(timeout=5).page(f"http://{host}:{port}/")
            assert "\n" not in str(refused.value)
            assert server.requests == []

    @pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "192.168.0.1", "::1", "fe80::1", "fd00::1"])
    async def test_a_name_that_resolves_to_a_private_address(self, address: str) -> None:
        with pytest.raises(BackendError, match="not on the public web"):
            await DirectFetcher(resolver=FakeResolver(address)).page("http://innocent.example/")

    async def test_one_private_address_among_public_ones(self) -> None:
        with pytest.raises(BackendError, match="not on the public web"):
            await DirectFetcher(resolver=FakeResolver("1.1.1.1 127.0.0.1")).page("http://innocent.example/")

    async def test_dns_rebinding_has_no_second_answer(self) -> None:
        """The name resolves to a permitted address when it is checked, to a forbidden one ever after."""
        async with serving({"/": page("public")}) as server, serving({"/": page("secret")}, "127.0.0.2") as inner:
            resolver = FakeResolver("127.0.0.1", "127.0.0.2")
            port = server.url.rpartition(":")[2]
            assert "public" in await text_of(f"http://rebind.example:{port}/", resolver=resolver)
            assert resolver.questions == ["rebind.example"], "the connection must use the answer that was checked"
            inner_port = inner.url.rpartition(":")[2]
            with pytest.raises(BackendError, match="not on the public web"):
                await text_of(f"http://rebind.example:{inner_port}/", resolver=resolver)
            assert inner.requests == []

    async def test_rebinding_between_retries(self) -> None:
        busy = in_turn(lambda: web.Response(status=503))
        async with serving({"/": busy}) as server:
            resolver = FakeResolver("127.0.0.1", "127.0.0.2")
            with pytest.raises(BackendError, match=r"127\.0\.0\.2, which is not on the public web"):
                await text_of(server.url.replace("127.0.0.1", "rebind.example"), resolver=resolver)
            assert len(server.requests) == 1

    @pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "[::ffff:127.0.0.2]", "inner.example"])
    async def test_a_redirect_to_a_forbidden_address(self, host: str) -> None:
        async with serving({"/": page("secret")}, "127.0.0.2") as inner:
            port = inner.url.rpartition(":")[2]
            async with serving({"/": redirect(f"http://{host}:{port}/")}) as server:
                resolver = FakeResolver("127.0.0.2") if host == "inner.example" else None
                with pytest.raises(BackendError):
                    await text_of(server.url, resolver=resolver)
            assert inner.requests == []

    @pytest.mark.parametrize(
        "url",
        ["file:///etc/passwd", "ftp://example.com/", "gopher://x/", "data:text/html,x", "javascript:x", "about:blank"],
    )
    async def test_other_schemes(self, url: str) -> None:
        with pytest.raises(BackendError, match="only http and https"):
            await text_of(url)
        async with serving({"/": redirect(url)}) as server:
            with pytest.raises(BackendError, match="only http and https"):
                await text_of(server.url)

    @pytest.mark.parametrize(
        "url",
        ["http://", "http:///x", "https://exa mple/", "http://[::1", "http://a:99999/", "", "http://..", "http://\x00"],
    )
    async def test_no_url_at_all(self, url: str) -> None:
        with pytest.raises(BackendError):
            await text_of(url)

    async def test_user_names_are_not_sent(self) -> None:
        async with serving({"/": page("x")}) as server:
            await text_of(server.url.replace("//", "//user:secret@"))
            assert "Authorization" not in server.requests[0].headers


class TestRedirects:
    async def test_are_followed_and_links_are_relative_to_the_end(self) -> None:
        handlers = {"/a": redirect("/b/", 301), "/b/": redirect("c?x=1", 307), "/b/c": page("<a href=d>link</a>")}
        async with serving(handlers) as server:
            fetched = await fetcher().page(f"{server.url}/a")
            assert fetched.url == f"{server.url}/b/c?x=1"
            assert fetched.urls == {"0": f"{server.url}/b/d"}

    async def test_a_loop(self) -> None:
        async with serving({"/a": redirect("/b"), "/b": redirect("/a")}) as server:
            with pytest.raises(BackendError, match="redirect loop"):
                await text_of(f"{server.url}/a")
            assert len(server.requests) == 11

    async def test_without_a_location(self) -> None:
        async with serving({"/": in_turn(lambda: web.Response(status=302))}) as server:
            with pytest.raises(BackendError, match="HTTP 302"):
                await text_of(server.url)


class TestTypes:
    @pytest.mark.parametrize(
        ("content_type", "body", "shown"),
        [
            ("text/html; charset=iso-8859-1", b"<p>caf\xe9", "café"),
            ("text/html", '<meta charset="koi8-r"><p>привет'.encode("koi8-r"), "привет"),
            ("text/plain", b"<b>as is</b> & 1. x", "<b>as is</b> & 1. x"),
            ("application/json", b'{"a": [1]}', '{"a": [1]}'),
            ("application/ld+json; charset=utf-8", b'{"b": 1}', '{"b": 1}'),
            ("text/markdown", b"# T\n[x](y)", "# T\n【0†x】"),
            ("application/xhtml+xml", b'<?xml version="1.0"?><html><body><p>x</p></body></html>', "x"),
            ("application/rss+xml", b"<rss><item>x</item></rss>", "<rss><item>x</item></rss>"),
            ("application/octet-stream", b" <!DOCTYPE html><p>x", "x"),
            ("", b"just text", "just text"),
            ("text/html", b"", "The page is empty: it has no text."),
        ],
    )
    async def test_text_is_shown(self, content_type: str, body: bytes, shown: str) -> None:
        async with serving({"/": page(body, content_type)}) as server:
            assert await text_of(f"{server.url}/") == f"\nURL: {server.url}/\n{shown}"

    @pytest.mark.parametrize(
        ("content_type", "body", "named"),
        [
            ("application/pdf", b"%PDF-1.7 ...", "PDF"),
            ("text/html", b"%PDF-1.7 ...", "PDF"),
            ("image/png", b"\x89PNG", "image/png"),
            ("text/plain", b"a\0b\0", "text/plain"),
            ("application/zip", b"PK", "application/zip"),
            ("", b"\0\1", "octet-stream"),
            ("video/mp4", b"x", "video/mp4"),
        ],
    )
    async def test_other_things_are_an_error(self, content_type: str, body: bytes, named: str) -> None:
        async with serving({"/": page(body, content_type)}) as server:
            with pytest.raises(BackendError, match=named):
                await text_of(server.url)

    async def test_view_source(self) -> None:
        async with serving({"/": page("<p>a</p>")}) as server:
            fetched = await fetcher().page(f"view-source:{server.url}/")
            assert fetched.text.endswith("<p>a</p>")
            assert fetched.url == f"view-source:{server.url}/"


class TestLimits:
    async def test_ten_megabytes(self) -> None:
        async with serving({"/": page(b"<p>" + b"x" * 10_000_000)}) as server:
            with pytest.raises(BackendError, match="larger than 8 MB"):
                await text_of(server.url)

    async def test_ten_megabytes_of_unknown_length(self) -> None:
        async def stream(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/html"})
            await response.prepare(request)
            for _ in range(1000):
                await response.write(b"x" * 100_000)
            return response

        async with serving({"/": stream}) as server:
            with pytest.raises(BackendError, match="larger than 8 MB"):
                await text_of(server.url)

    async def test_a_compression_bomb(self) -> None:
        bomb = gzip.compress(b"x" * 100_000_000)
        headers = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
        async with serving({"/": in_turn(lambda: web.Response(body=bomb, headers=headers))}) as server:
            with pytest.raises(BackendError):
                await text_of(server.url)

    async def test_a_server_that_never_answers(self) -> None:
        async def wait(_: web.Request) -> web.Response:
            await asyncio.sleep(30)
            return web.Response()

        async with serving({"/": wait}) as server:
            started = time.monotonic()
            with pytest.raises(BackendError, match="time-out"):
                await text_of(server.url, timeout=0.3)
            assert time.monotonic() - started < 10

    async def test_a_byte_now_and_then(self) -> None:
        async def drip(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/html"})
            await response.prepare(request)
            for _ in range(600):
                await response.write(b"x")
                await asyncio.sleep(0.05)
            return response

        async with serving({"/": drip}) as server:
            started = time.monotonic()
            with pytest.raises(BackendError, match="time-out"):
                await text_of(server.url, timeout=0.5)
            assert time.monotonic() - started < 10

    @pytest.mark.parametrize("status", [404, 403, 410, 500, 204])
    async def test_other_answers(self, status: int) -> None:
        async with serving({"/": in_turn(lambda: web.Response(status=status))}) as server:
            with pytest.raises(BackendError, match=f"HTTP {status}"):
                await text_of(server.url)

    async def test_nobody_listens(self) -> None:
        async with serving({}) as server:
            pass
        with pytest.raises(BackendError, match="cannot be fetched"):
            await text_of(server.url)

    async def test_what_is_not_http(self) -> None:
        async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-nonsense\r\n\r\n")
            writer.close()

        raw = await asyncio.start_server(shout, "127.0.0.1", 0)
        async with raw:
            port = raw.sockets[0].getsockname()[1]
            with pytest.raises(BackendError, match="cannot be fetched"):
                await text_of(f"http://127.0.0.1:{port}/")


class TestRetries:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_a_busy_server_is_asked_again(self, status: int) -> None:
        answers = in_turn(lambda: web.Response(status=status), lambda: web.Response(text="done"))
        async with serving({"/": answers}) as server:
            assert "done" in await text_of(server.url)
            assert len(server.requests) == 2

    async def test_not_for_ever(self) -> None:
        async with serving({"/": in_turn(lambda: web.Response(status=429))}) as server:
            with pytest.raises(BackendError, match="HTTP 429"):
                await text_of(server.url)
            assert len(server.requests) == 3

    def test_pauses(self) -> None:
        policy = RetryPolicy(attempts=4, first_pause=0.5, longest_pause=3.0)
        assert [policy.pause(attempt, None) for attempt in range(4)] == [0.5, 1.0, 2.0, 3.0]
        assert policy.pause(0, "2") == 2.0
        assert policy.pause(0, "86400") == 3.0
        assert policy.pause(1, "soon") == 1.0
        assert policy.pause(0, "Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
        assert policy.pause(0, "Wed, 21 Oct 2099 07:28:00 GMT") == 3.0

    async def test_retry_after_is_followed(self) -> None:
        busy = web.Response(status=429, headers={"Retry-After": "0.3"})
        async with serving({"/": in_turn(lambda: busy, lambda: web.Response(text="done"))}) as server:
            started = time.monotonic()
            await text_of(server.url, retry=RetryPolicy(first_pause=0.0, longest_pause=5.0))
            assert time.monotonic() - started >= 0.3
