"""The cache folder and its command."""

import os
from pathlib import Path, PurePosixPath

import pytest

from gpt_oss.cache import cache_directory, cache_entries, clear_cache, main
from gpt_oss.errors import CacheError


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({}, "linux", "~/.cache/gpt-oss"),
        ({"XDG_CACHE_HOME": "/var/cache/me"}, "linux", "/var/cache/me/gpt-oss"),
        ({"XDG_CACHE_HOME": "relative"}, "linux", "~/.cache/gpt-oss"),
        ({"XDG_CACHE_HOME": ""}, "linux", "~/.cache/gpt-oss"),
        ({"XDG_CACHE_HOME": "/var/cache/me"}, "darwin", "~/Library/Caches/gpt-oss"),
        ({"LOCALAPPDATA": "/C/Users/me/AppData/Local"}, "win32", "/C/Users/me/AppData/Local/gpt-oss/Cache"),
        ({"GPT_OSS_CACHE": "/data", "XDG_CACHE_HOME": "/var", "LOCALAPPDATA": "/C"}, "linux", "/data"),
        ({"GPT_OSS_CACHE": "/data", "LOCALAPPDATA": "/C"}, "win32", "/data"),
        ({"GPT_OSS_CACHE": "~/models"}, "darwin", "~/models"),
        ({"GPT_OSS_CACHE": ""}, "linux", "~/.cache/gpt-oss"),
    ],
)
def test_place(home, environment, platform, expected):
    found = PurePosixPath(cache_directory(environment, platform).as_posix())
    assert found == PurePosixPath(expected.replace("~", str(home)))


def test_relative_name_is_taken_from_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cache_directory({"GPT_OSS_CACHE": "here"}) == tmp_path / "here"


@pytest.fixture
def filled(tmp_path):
    """A folder with two entries of ours, 310 bytes, and things that belong to somebody else."""
    cache = tmp_path / "cache"
    (cache / "gpt-oss-demo-model-1" / "deep").mkdir(parents=True)
    (cache / "gpt-oss-demo-model-1" / "a").write_bytes(bytes(100))
    (cache / "gpt-oss-demo-model-1" / "deep" / "b").write_bytes(bytes(200))
    (cache / "gpt-oss-other").write_bytes(bytes(10))
    (cache / "thesis.tex").write_bytes(bytes(5))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    os.symlink(tmp_path / "elsewhere", cache / "gpt-oss-link")
    return cache


def test_entries(filled):
    found = {entry.path.name: entry.nbytes for entry in cache_entries(filled)}
    assert next(iter(found)) == "gpt-oss-demo-model-1"
    assert found["gpt-oss-demo-model-1"] == 300
    assert found["gpt-oss-other"] == 10
    assert set(found) == {"gpt-oss-demo-model-1", "gpt-oss-other", "gpt-oss-link"}


def test_clearing_deletes_only_what_is_ours(filled):
    assert clear_cache(filled) >= 310
    assert [path.name for path in filled.iterdir()] == ["thesis.tex"]
    assert (filled.parent / "elsewhere" / "kept").exists()
    assert clear_cache(filled) == 0


def test_no_folder(tmp_path):
    assert cache_entries(tmp_path / "none") == []
    assert clear_cache(tmp_path / "none") == 0


def test_unreadable_folder(tmp_path):
    (tmp_path / ("x" * 20)).mkdir()
    with pytest.raises(CacheError, match=r"cannot be read \(File name too long\); set GPT_OSS_CACHE"):
        cache_entries(tmp_path / ("x" * 300))


def test_command(filled, monkeypatch, capsys):
    (filled / "gpt-oss-other").write_bytes(bytes(2_500_000))
    monkeypatch.setenv("GPT_OSS_CACHE", str(filled))
    assert main([]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{filled}: 2.5 MB"
    assert second.split() == ["2.5", "MB", "gpt-oss-other"]
    assert main(["--clear"]) == 0
    assert capsys.readouterr().out == f"{filled}: freed 2.5 MB\n"
    assert main([]) == 0
    assert capsys.readouterr().out == f"{filled}: 0.0 MB\n"


def test_command_reports_errors(monkeypatch, capsys):
    monkeypatch.setenv("GPT_OSS_CACHE", "/" + "x" * 300)
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("gpt-oss cache: error: /xxx")


def test_nothing_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("GPT_OSS_CACHE", str(tmp_path / "cache"))
    assert cache_directory() == Path(tmp_path / "cache")
    assert main([]) == 0
    assert not (tmp_path / "cache").exists()
