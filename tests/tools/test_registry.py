"""From a name and an environment to a tool, or to one line that says which variable is wrong."""

import os
import sys

import pytest

from gpt_oss.errors import ToolError
from gpt_oss.tools.apply_patch.tool import ApplyPatchTool
from gpt_oss.tools.python_docker import docker_tool
from gpt_oss.tools.python_docker.choice import Options
from gpt_oss.tools.python_docker.docker_tool import PythonTool
from gpt_oss.tools.python_docker.images import ProgressBar
from gpt_oss.tools.registry import BROWSER_SETTINGS, TOOLS, build_tool
from gpt_oss.tools.simple_browser import ExaBackend, LocalBackend, SearxngBackend, SimpleBrowserTool, YouComBackend
from gpt_oss.tools.simple_browser.backend import BACKENDS


@pytest.mark.parametrize(
    ("environment", "backend"),
    [
        ({"YDC_API_KEY": "k"}, YouComBackend),
        ({"YDC_API_KEY": "k", "EXA_API_KEY": "l", "SEARXNG_URL": "http://s"}, YouComBackend),
        ({"EXA_API_KEY": "k"}, ExaBackend),
        ({"SEARXNG_URL": "http://s"}, SearxngBackend),
        ({"YDC_API_KEY": "k", "EXA_API_KEY": "l", "BROWSER_BACKEND": "exa"}, ExaBackend),
        ({"YDC_API_KEY": "k", "SEARXNG_URL": "http://s", "BROWSER_BACKEND": "searxng"}, SearxngBackend),
        ({"YDC_API_KEY": "", "EXA_API_KEY": "k", "BROWSER_BACKEND": ""}, ExaBackend),
    ],
)
def test_browser_backend_follows_the_environment(environment: dict[str, str], backend: type) -> None:
    tool = build_tool("browser", environment)
    assert isinstance(tool, SimpleBrowserTool)
    assert type(tool.backend) is backend


def test_settings_reach_the_backend(tmp_path) -> None:
    exa = build_tool("browser", {"EXA_API_KEY": "secret"})
    assert isinstance(exa, SimpleBrowserTool) and isinstance(exa.backend, ExaBackend)
    assert exa.backend.api_key == "secret"
    searxng = build_tool("browser", {"SEARXNG_URL": "http://localhost:1"})
    assert isinstance(searxng, SimpleBrowserTool) and isinstance(searxng.backend, SearxngBackend)
    assert searxng.backend.base_url == "http://localhost:1"
    local = build_tool("browser", {"BROWSER_LOCAL_FOLDER": str(tmp_path)})
    assert isinstance(local, SimpleBrowserTool) and isinstance(local.backend, LocalBackend)


@pytest.mark.parametrize(
    ("name", "environment", "complaint"),
    [
        ("calculator", {}, "no tool called 'calculator'; known are browser, python, apply_patch"),
        ("browser", {}, "one of these variables: YDC_API_KEY, EXA_API_KEY, SEARXNG_URL, BROWSER_LOCAL_FOLDER"),
        (
            "browser",
            {"BROWSER_BACKEND": "bing"},
            "(BROWSER_BACKEND) called 'bing'; known are youcom, exa, searxng, local",
        ),
        ("browser", {"BROWSER_BACKEND": "youcom", "EXA_API_KEY": "k"}, "youcom needs the variable YDC_API_KEY"),
        ("browser", {"BROWSER_BACKEND": "exa", "EXA_API_KEY": ""}, "exa needs the variable EXA_API_KEY"),
        ("browser", {"BROWSER_BACKEND": "searxng"}, "searxng needs the variable SEARXNG_URL"),
        ("browser", {"BROWSER_BACKEND": "local"}, "local needs the variable BROWSER_LOCAL_FOLDER"),
        ("python", {"PYTHON_EXECUTION_BACKEND": "podmam"}, "'podmam' (PYTHON_EXECUTION_BACKEND); known are docker,"),
    ],
)
def test_wrong_and_missing_settings_are_named_in_one_line(
    name: str, environment: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ToolError) as error:
        build_tool(name, environment)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


async def test_python_and_apply_patch() -> None:
    environment = {"PYTHON_EXECUTION_BACKEND": "dangerously_use_uv", "PYTHON_IMAGE": ""}
    async with build_tool("python", environment) as python:
        assert isinstance(python, PythonTool)
        assert "on the user's machine" in python.instruction
    async with build_tool("python", {}) as python:
        assert "container" in python.instruction
    assert isinstance(build_tool("apply_patch", {}), ApplyPatchTool)


def test_the_download_of_an_image_is_told_to_who_asked(monkeypatch) -> None:
    chosen: list[Options] = []
    monkeypatch.setattr(docker_tool, "make_backend", lambda name, options: chosen.append(options))
    progress = ProgressBar(sys.stderr)
    build_tool("python", {"PYTHON_EXECUTION_BACKEND": "docker"}, progress)
    assert chosen[0].progress is progress


def test_every_tool_answers_to_its_name_and_every_browser_backend_is_known() -> None:
    environment = {setting.variable: os.curdir for setting in BROWSER_SETTINGS.values()}
    assert [build_tool(name, environment).name for name in TOOLS] == list(TOOLS)
    assert list(BROWSER_SETTINGS) == list(BACKENDS)


def test_the_process_environment_is_the_default(monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_EXECUTION_BACKEND", "nonsense")
    with pytest.raises(ToolError, match="'nonsense'"):
        build_tool("python")
