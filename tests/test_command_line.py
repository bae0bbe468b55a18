"""How a command ends: one line for what failed, and who failed."""

import pytest

from gpt_oss.command_line import run_command
from gpt_oss.errors import CheckpointError, RequestError


@pytest.mark.parametrize(
    ("error", "status"), [(RequestError("no"), 2), (CheckpointError("no"), 1), (ConnectionResetError("no"), 1)]
)
@pytest.mark.parametrize(("rank", "who"), [("0", "gpt-oss chat"), ("3", "gpt-oss chat (rank 3)")])
def test_a_failure_is_one_line_that_names_the_rank(monkeypatch, capsys, error, status, rank, who) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setenv("RANK", rank)
    assert run_command("gpt-oss chat", fail) == status
    assert capsys.readouterr() == ("", f"{who}: error: no\n")
