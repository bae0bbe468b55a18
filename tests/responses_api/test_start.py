"""What the server needs besides its model is tried before the model is loaded, and costs a sentence if it cannot be."""

import socket

import pytest

from gpt_oss.responses_api.serve import main


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "(Address already in use); choose another --port or --host"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port"),
        (["--host", "no such name"], "cannot listen on no such name port"),
    ],
)
def test_an_address_that_cannot_be_had(options, complaint, capsys):
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        assert main(["--port", port, *options], load=pytest.fail) == 2
    output = capsys.readouterr()
    assert output.out == "" and complaint in output.err and output.err.count("\n") == 1


def test_a_port_that_is_none(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--port", "80000"], load=pytest.fail)
    assert "--port: expected a port from 0 to 65535, got '80000'" in capsys.readouterr().err


def test_a_store_that_cannot_be_used(tmp_path, capsys):
    no_database = tmp_path / "notes.txt"
    no_database.write_text("Something else altogether. " * 40)
    for path in (no_database, tmp_path, tmp_path / "absent" / "store.db"):
        assert main(["--port", "0", "--store", str(path)], load=pytest.fail) == 1
        said = capsys.readouterr().err
        assert f"{path}: cannot be used to store responses" in said and said.count("\n") == 1
    assert no_database.read_text().startswith("Something else")
