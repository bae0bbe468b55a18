"""The address is taken before the model is loaded, and one that cannot be had costs a sentence."""

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
