"""The local backend: a folder of documents, searched and opened with no network at all."""

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss.cache import cache_entries
from gpt_oss.tools.simple_browser import SimpleBrowserTool
from gpt_oss.tools.simple_browser.backend import BackendError, LocalBackend
from gpt_oss.tools.simple_browser.local import cached_index_path
from gpt_oss.tools.simple_browser.local_files import read_page
from gpt_oss.tools.simple_browser.local_index import LocalIndex, match_expression
from gpt_oss.tools.simple_browser.page_contents import PageContents
from gpt_oss.tools.simple_browser.text import wrap_lines
from tests.tools.browser.fakes import call

FILES = {
    "index.html": "<title>Garden</title><p>Roses and tulips. <a href='guide/soil.md'>a</a> <a href='../out.txt'>b</a>",
    "guide/soil.md": "# Soil guide\n\nClay holds water. See [the garden](../index.html).\n"
    + "filler line\n\n" * 60
    + "The secret ingredient is compost from oak leaves.\n",
    "notes.txt": "Tulips want sand.\nGrüße aus Überlingen. 漢字の文章です。 C++ and C#.\n",
    "guide/empty.txt": "",
    "image.png": "tulips tulips tulips",
    ".hidden.txt": "tulips hidden",
    ".git/config.txt": "tulips config",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "out.txt").write_text("tulips outside")
    (tmp_path / "docs-secret").mkdir()
    (tmp_path / "docs-secret" / "s.txt").write_text("tulips next door")
    return root


@pytest.fixture
def backend(folder: Path) -> LocalBackend:
    return LocalBackend(folder, index_path=":memory:")


async def search(backend: LocalBackend, query: str, topn: int = 10) -> PageContents:
    async with aiohttp.ClientSession() as session:
        return await backend.search(query, topn, session)


async def fetch(backend: LocalBackend, url: str) -> PageContents:
    async with aiohttp.ClientSession() as session:
        return await backend.fetch(url, session)


def names(page: PageContents) -> list[str]:
    return [url.rpartition("/")[2] for url in page.urls.values()]


async def test_search_opens_at_the_passage(folder: Path, backend: LocalBackend) -> None:
    tool = SimpleBrowserTool(backend, view_tokens=200)
    found = await call(tool, "browser.search", {"query": "secret ingredient"})
    assert "【0†Soil guide】" in found
    assert "compost from oak leaves" in found
    view = await call(tool, "browser.open", {"id": 0})
    assert "The secret ingredient is compost" in view
    assert "viewing lines [0" not in view
    assert f"in {folder}" not in view
    text, annotations, _ = tool.normalize_citations("oak【1†L124】")
    assert annotations[0]["url"] == (folder / "guide/soil.md").as_uri()
    assert text == f"oak ([soil.md]({annotations[0]['url']}))"


async def test_links_between_documents(backend: LocalBackend) -> None:
    tool = SimpleBrowserTool(backend)
    assert "Roses" in await call(tool, "browser.open", {"id": "index.html"})
    assert "Clay" in await call(tool, "browser.open", {"id": 0})
    assert "Roses" in await call(tool, "browser.open", {"id": 0})
    assert "Error" in await call(tool, "browser.open", {"id": 1}), "the link leads out of the folder"
    assert "<title>" in await call(tool, "browser.open", {"id": "index.html", "view_source": True})


async def test_best_match_first(folder: Path, backend: LocalBackend) -> None:
    (folder / "tulips.html").write_text("<title>All about tulips</title>Tulips, tulips and more tulips.")
    found = await search(backend, "tulips")
    assert names(found)[0] == "tulips.html"
    assert set(names(found)) == {"tulips.html", "index.html", "notes.txt"}
    assert len((await search(backend, "tulips", 2)).urls) == 2


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("rose", "index.html"),
        ("ROSES", "index.html"),
        ("uberlingen grusse", "notes.txt"),
        ("漢字", "notes.txt"),
        ("文章", "notes.txt"),
        ("c++", "notes.txt"),
        ('roses AND (OR NOT "', "index.html"),
        ("roses* -tulips title:x ^y {z} NEAR(a b)", "index.html"),
        ("what are roses?", "index.html"),
        ("notes txt", "notes.txt"),
    ],
)
async def test_queries(backend: LocalBackend, query: str, name: str) -> None:
    assert name in names(await search(backend, query))


@pytest.mark.parametrize(
    "query", ["nosuchword", "docs", "page empty", "***", '"', "'; DROP TABLE documents; --", "\0", "字漢"]
)
async def test_nothing_found(backend: LocalBackend, query: str) -> None:
    with pytest.raises(BackendError, match="no results"):
        await search(backend, query)


@given(st.text(max_size=60))
def test_no_query_is_a_syntax_error(query: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5 (body)")
    connection.execute("INSERT INTO t VALUES ('words')")
    expression = match_expression(query)
    if expression:
        connection.execute("SELECT * FROM t WHERE t MATCH ?", (expression,)).fetchall()
    connection.close()


async def test_changes_are_seen(folder: Path, backend: LocalBackend) -> None:
    assert "index.html" in names(await search(backend, "roses"))
    (folder / "index.html").write_text("<p>Only violets now")
    (folder / "new.md").write_text("fresh roses")
    assert names(await search(backend, "roses")) == ["new.md"]
    (folder / "new.md").unlink()
    with pytest.raises(BackendError, match="no results"):
        await search(backend, "roses")


def test_only_what_changed_is_read(folder: Path, tmp_path: Path) -> None:
    database = str(tmp_path / "index.sqlite")
    index = LocalIndex(folder, database)
    assert index.refresh() == 4
    assert index.refresh() == 0
    index.close()
    again = LocalIndex(folder, database)
    assert again.refresh() == 0, "the index outlives the process"
    os.utime(folder / "notes.txt", ns=(1, 1))
    assert again.refresh() == 1
    (folder / "notes.txt").unlink()
    assert again.refresh() == 0
    assert [hit.path.name for hit in again.search("tulips", 9)] == ["index.html"]
    again.close()


def test_a_hit_knows_its_line(folder: Path, backend: LocalBackend) -> None:
    index = LocalIndex(folder, ":memory:")
    index.refresh()
    (hit,) = index.search("compost", 5)
    assert hit.title == "Soil guide"
    page = read_page(hit.path, hit.path.read_bytes()).text
    assert wrap_lines(page)[hit.line] == "The secret ingredient is compost from oak leaves."
    assert "\u200b" not in index.search("漢字", 1)[0].passage
    index.close()


def test_threads_share_an_index(folder: Path) -> None:
    index = LocalIndex(folder, ":memory:")
    found = []

    def work() -> None:
        index.refresh()
        found.append(len(index.search("tulips", 9)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.close()
    assert found == [2] * 8


OUTSIDE = [
    "../out.txt",
    "guide/../../out.txt",
    "/../out.txt",
    "../docs-secret/s.txt",
    "..%2fout.txt",
    ".hidden.txt",
    ".git/config.txt",
    "image.png",
    "guide",
    "",
    "nothing.txt",
    "a\0b.txt",
    "x" * 5000,
    "https://example.com/",
    "http://localhost/notes.txt",
    "file://host/etc/passwd",
    "link.txt",
    "linked/s.txt",
    "loop.txt",
    "pipe.txt",
]


def absolute(path: Callable[[Path], Path]) -> Callable[[Path], str]:
    return lambda folder: path(folder).as_uri()


@pytest.mark.parametrize(
    "url",
    [
        *OUTSIDE,
        absolute(lambda folder: folder.parent / "out.txt"),
        absolute(lambda folder: Path("/etc/passwd")),
        lambda folder: f"file://{folder}/..%2Fout.txt",
        lambda folder: f"file://{folder}/%2e%2e/out.txt",
        lambda folder: f"{folder.parent}/out.txt",
    ],
)
async def test_nothing_outside_is_opened(folder: Path, backend: LocalBackend, url: str | Callable[[Path], str]) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "out.txt")
    (folder / "linked").symlink_to(folder.parent / "docs-secret")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(BackendError) as refused:
        await fetch(backend, url if isinstance(url, str) else url(folder))
    assert "outside" not in str(refused.value)
    assert set(names(await search(backend, "tulips outside next door"))) == {"index.html", "notes.txt"}


async def test_a_link_inside_the_folder_is_the_same_document(folder: Path, backend: LocalBackend) -> None:
    (folder / "alias.txt").symlink_to(folder / "notes.txt")
    assert names(await search(backend, "sand")) == ["notes.txt"]
    assert (await fetch(backend, "alias.txt")).url == (folder / "notes.txt").as_uri()


async def test_large_files_are_left_out(folder: Path, backend: LocalBackend) -> None:
    (folder / "large.txt").write_text("violets " * 1_200_000)
    with pytest.raises(BackendError, match="no results"):
        await search(backend, "violets")
    with pytest.raises(BackendError, match="8 MB"):
        await fetch(backend, "large.txt")


async def test_the_index_lies_in_the_users_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    await search(LocalBackend(folder), "tulips")
    (entry,) = cache_entries(tmp_path / "cache/gpt-oss")  # so `gpt-oss cache` shows and clears it
    (index,) = entry.path.iterdir()
    assert index == cached_index_path(folder.resolve())
    index.write_bytes(b"not a database at all" * 100)
    assert names(await search(LocalBackend(folder), "sand")) == ["notes.txt"], "in memory if the file is unusable"
    with pytest.raises(BackendError, match="cannot be used"):
        await search(LocalBackend(folder, index_path=index), "sand")


async def test_a_file_name_that_is_no_text_harms_nobody(folder: Path, backend: LocalBackend) -> None:
    (folder / os.fsdecode(b"bad\xff.txt")).write_text("tulips")
    assert "notes.txt" in names(await search(backend, "tulips"))
    with pytest.raises(BackendError):
        await fetch(backend, "bad\udcff.txt")


def test_a_root_that_is_no_folder(folder: Path) -> None:
    for root in (folder / "missing", folder / "notes.txt"):
        with pytest.raises(BackendError, match="not a folder"):
            LocalBackend(root)
