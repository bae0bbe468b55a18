"""Tools by name, configured by the environment: the only place of the tools that reads environment variables.

    browser      BROWSER_BACKEND                       youcom, exa, searxng or local; left out: the first of these
                                                       for which a variable below is set
                 YDC_API_KEY, EXA_API_KEY              keys of You.com and Exa
                 SEARXNG_URL                           address of a SearXNG instance
                 BROWSER_LOCAL_FOLDER                  folder of HTML, Markdown and text to search
    python       PYTHON_EXECUTION_BACKEND              see gpt_oss.tools.python_docker.choice; default docker
                 PYTHON_IMAGE                          container image to use
                 PYTHON_LOCAL_JUPYTER_CONNECTION_FILE  a running kernel, for dangerously_use_local_jupyter
    apply_patch  -                                     works below the current folder

A wrong or missing setting is a ToolError of one line that names the variable. Each tool's package is imported only
when the tool is built.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from gpt_oss.errors import ToolError
from gpt_oss.tools.tool import Tool

if TYPE_CHECKING:
    from gpt_oss.tools.python_docker.images import Progress

T = TypeVar("T")
Environment = Mapping[str, str]


def build_tool(name: str, environment: Environment = os.environ, progress: "Progress | None" = None) -> Tool:
    """Build the tool called `name`; raises ToolError for an unknown name or a setting that is wrong or missing.

    progress: told about the download of a container image, should python need one.
    """
    return _choose(TOOLS, name, "tool")(environment, progress)


def _browser(environment: Environment, _: "Progress | None") -> Tool:
    from gpt_oss.tools.simple_browser import SimpleBrowserTool
    from gpt_oss.tools.simple_browser.backend import make_backend

    name = environment.get("BROWSER_BACKEND") or _configured_browser(environment)
    setting = _choose(BROWSER_SETTINGS, name, "browser backend (BROWSER_BACKEND)")
    value = environment.get(setting.variable)
    if not value:
        raise ToolError(f"the browser backend {name} needs the variable {setting.variable}, which is not set")
    return SimpleBrowserTool(backend=make_backend(name, **{setting.option: value}))


def _configured_browser(environment: Environment) -> str:
    for name, setting in BROWSER_SETTINGS.items():
        if environment.get(setting.variable):
            return name
    variables = ", ".join(setting.variable for setting in BROWSER_SETTINGS.values())
    raise ToolError(f"the browser needs one of these variables: {variables}")


def python_setting(variable: str, environment: Environment = os.environ) -> str | None:
    """Read a variable of the python tool, None when it is not set; a bare `PythonTool()` asks here, too."""
    return environment.get(variable) or None


def _python(environment: Environment, progress: "Progress | None") -> Tool:
    from gpt_oss.tools.python_docker.choice import DEFAULT_BACKEND
    from gpt_oss.tools.python_docker.docker_tool import PythonTool

    return PythonTool(
        execution_backend=python_setting("PYTHON_EXECUTION_BACKEND", environment) or DEFAULT_BACKEND,
        image=python_setting("PYTHON_IMAGE", environment),
        progress=progress,
        local_jupyter_connection_file=python_setting("PYTHON_LOCAL_JUPYTER_CONNECTION_FILE", environment),
    )


def _apply_patch(_: Environment, __: "Progress | None") -> Tool:
    from gpt_oss.tools.apply_patch.tool import ApplyPatchTool

    return ApplyPatchTool()


def _choose(table: Mapping[str, T], name: str, what: str) -> T:
    if name not in table:
        raise ToolError(f"there is no {what} called {name!r}; known are {', '.join(table)}")
    return table[name]


class Setting(NamedTuple):
    """The variable a browser backend cannot do without, and the constructor's option it fills."""

    variable: str
    option: str


BROWSER_SETTINGS: Final[Mapping[str, Setting]] = {
    "youcom": Setting("YDC_API_KEY", "api_key"),
    "exa": Setting("EXA_API_KEY", "api_key"),
    "searxng": Setting("SEARXNG_URL", "base_url"),
    "local": Setting("BROWSER_LOCAL_FOLDER", "root"),
}
TOOLS: Final[Mapping[str, Callable[[Environment, "Progress | None"], Tool]]] = {
    "browser": _browser,
    "python": _python,
    "apply_patch": _apply_patch,
}
