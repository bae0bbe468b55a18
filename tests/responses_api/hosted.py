"""Tools for the server to run: the real browser over pages written here, and a python tool that prints the same."""

from typing import Any

from aiohttp import ClientSession

from gpt_oss.tools.simple_browser import SimpleBrowserTool
from gpt_oss.tools.simple_browser.backend import Backend
from gpt_oss.tools.simple_browser.page_contents import PageContents
from tests.helpers.scripted import ScriptedTool


class Pages(Backend):
    """Every search finds one page."""

    source = "news"

    async def search(self, query: str, topn: int, session: ClientSession) -> PageContents:
        text = f"Results for {query}\n\n  * 【0†Berlin†news.example】 All is well.\n\nEnd."
        return PageContents(url="", title=query, text=text, urls={"0": "https://news.example/berlin"})

    async def fetch(self, url: str, session: ClientSession) -> PageContents:
        return PageContents(url=url, title="Berlin", text="All is well in Berlin.", urls={})


class Interpreter(ScriptedTool):
    """Prints the same each time."""

    def __init__(self, printed: str):
        super().__init__("python", *[printed] * 10)

    async def close(self) -> None:
        """Holds nothing."""


def hosted_browser() -> dict[str, Any]:
    return {"browser": lambda: SimpleBrowserTool(backend=Pages())}


def hosted_python(printed: str) -> dict[str, Any]:
    return {"python": lambda: Interpreter(printed)}
