"""The browser tool, usable with any Harmony model: `SimpleBrowserTool(backend=ExaBackend(source="web"))`.

From the bottom: `text` and `links` (pure functions over strings), `page_contents` with the `html_*` modules
(HTML to a page), `view`, `find`, `citations` (pages to what is shown), the backends (`backend` names them),
`state` (one conversation) and `simple_browser_tool` on top.
"""

from gpt_oss.tools.simple_browser.backend import ExaBackend, LocalBackend, SearxngBackend, YouComBackend
from gpt_oss.tools.simple_browser.simple_browser_tool import SimpleBrowserTool

__all__ = ["ExaBackend", "LocalBackend", "SearxngBackend", "SimpleBrowserTool", "YouComBackend"]
