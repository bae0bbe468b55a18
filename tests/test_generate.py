"""The generate command: what it prints, how it ends, in this process and as a user would start it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from gpt_oss import generate
from gpt_oss.harmony.tokens import CALL, CHANNEL, END, MESSAGE, RETURN, START
from gpt_oss.token_generator import Token
from gpt_oss.tokenizer import get_tokenizer
from tests.helpers.checkpoints import tiny_checkpoint, tiny_config
from tests.helpers.processes import children_seconds

ROOT = Path(__file__).parents[1]
STATISTICS = re.compile(
    r"\[\d+ prompt tokens, \d+ generated \(\w+\); first token after \d+\.\d\d s, then [\d.]+ tokens/s\]\n"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model over the real vocabulary."""
    config = tiny_config(vocab_size=201_088, hidden_size=32, num_hidden_layers=1, num_attention_heads=8)
    return str(tiny_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint", config))


def tokens(*parts: str | int) -> list[Token]:
    """Text encoded, control tokens by their ids."""
    ids = [id for part in parts for id in ([part] if isinstance(part, int) else get_tokenizer().encode_ordinary(part))]
    return [Token(id, -0.5) for id in ids]


class TestText:
    def test_a_character_split_over_tokens_comes_whole(self) -> None:
        text = "a 🙂‍↕️ 日本語 👩🏽‍🚀 z"
        split = tokens(text)
        pieces = list(generate.text_pieces(split))
        assert len(split) > len([piece for piece in pieces if piece]), "the text has no split character"
        assert "".join(pieces) == text
        assert "\ufffd" not in "".join(pieces)

    def test_half_a_character_at_the_end_is_shown_as_such(self) -> None:
        emoji = tokens("👩🏽‍🚀")
        assert "".join(generate.text_pieces(emoji[:1])).endswith("\ufffd")

    def test_special_tokens_are_shown_and_the_last_one_is_not(self) -> None:
        assert "".join(generate.text_pieces(tokens(CHANNEL, "final", MESSAGE, "hi", RETURN))) == (
            "<|channel|>final<|message|>hi"
        )

    def test_an_id_that_the_vocabulary_lacks_is_shown_as_such(self) -> None:
        odd = [*tokens("a"), Token(201_100, -2.0), *tokens("b")]
        assert "".join(generate.text_pieces(odd)) == "a\ufffdb"
        assert "Generated token: '\ufffd', logprob: -2.000000\n" in list(generate.logprob_lines(odd))

    def test_pieces_come_as_the_tokens_do(self) -> None:
        source = iter(tokens("one two three"))
        pieces = generate.text_pieces(source)
        assert next(pieces) == "one"
        assert len(list(source)) == 2


class TestAnswer:
    def test_only_the_final_message_is_shown(self, caplog) -> None:
        turn = tokens(
            *(CHANNEL, "analysis", MESSAGE, "thinking", END),
            *(START, "assistant", CHANNEL, "commentary", MESSAGE, "I will", END),
            *(START, "assistant", CHANNEL, "final", MESSAGE, "Paris 🗼.", RETURN),
        )
        assert "".join(generate.answer_pieces(turn)) == "Paris 🗼."
        assert not caplog.records

    def test_it_is_streamed(self) -> None:
        source = iter(tokens(CHANNEL, "final", MESSAGE, "one two three", RETURN))
        pieces = generate.answer_pieces(source)
        assert next(pieces) == "one"
        assert len(list(source)) == 3

    @pytest.mark.parametrize(
        "turn",
        [
            (CHANNEL, "analysis", MESSAGE, "thinking and"),
            (CHANNEL, "commentary to=functions.f", MESSAGE, "{}", CALL),
            (),
        ],
    )
    def test_no_answer_is_said(self, turn, caplog) -> None:
        assert "".join(generate.answer_pieces(tokens(*turn))) == ""
        assert "without an answer" in caplog.text

    def test_an_answer_that_is_cut_keeps_its_beginning(self) -> None:
        assert "".join(generate.answer_pieces(tokens(CHANNEL, "final", MESSAGE, "Par"))) == "Par"


class TestCommand:
    def test_the_text_goes_to_stdout_and_the_statistics_to_stderr(self, checkpoint, capsys) -> None:
        assert generate.main([checkpoint, "-p", "Hello", "-l", "7"]) == 0
        out, err = capsys.readouterr()
        assert out.strip() and out.endswith("\n")
        assert STATISTICS.fullmatch(err)
        assert "7 generated (length)" in err

    def test_logprobs_are_printed_as_the_public_command_does(self, checkpoint, capsys) -> None:
        assert generate.main([checkpoint, "-p", "Hello", "-l", "5", "--logprobs"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 5
        assert all(re.fullmatch(r"Generated token: '.*', logprob: -\d+\.\d+", line) for line in lines)

    def test_a_seed_repeats_an_answer(self, checkpoint, capsys) -> None:
        def answer(*more: str) -> str:
            assert generate.main([checkpoint, "-p", "Hello", "-l", "6", "-t", "1", *more]) == 0
            return capsys.readouterr().out

        assert answer("--seed", "1") == answer("--seed", "1") != answer("--seed", "2")

    def test_chat_renders_a_conversation(self, checkpoint, capsys) -> None:
        assert generate.main([checkpoint, "--chat", "-p", "Hello", "-l", "3"]) == 0
        prompt_tokens = int(capsys.readouterr().err.split("[")[1].split()[0])
        assert prompt_tokens > 50
        assert generate.main([checkpoint, "--raw", "-p", "<|start|>Hello", "-l", "3"]) == 0
        assert "[2 prompt tokens" in capsys.readouterr().err

    def test_the_prompt_from_standard_input(self, checkpoint, capsys, monkeypatch) -> None:
        (Path(checkpoint) / "prompt").write_bytes(b"one two \xff")
        with open(Path(checkpoint) / "prompt") as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert generate.main([checkpoint, "-p", "-", "-l", "1"]) == 0
        assert "[3 prompt tokens" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (["/nowhere"], 1, "/nowhere"),
            (["a" * 300], 1, "File name too long"),
            (["FILE", "--device", "meta"], 1, "device 'meta' cannot be used here"),
            (["FILE", "-p", ""], 2, "the prompt is empty"),
            (["FILE", "--context-length", "3", "-p", "one two three four five"], 2, "context holds 3"),
            (["FILE", "--device", "nonsense"], 1, "nonsense"),
            (["FILE", "--tensor-parallel-size", "2"], 2, "torchrun --nproc-per-node 2"),
            (["FILE", "-b", "metal", "--dtype", "float32"], 2, "no option --dtype"),
        ],
    )
    def test_failures_are_one_line_on_stderr(self, checkpoint, capsys, arguments, status, message) -> None:
        assert generate.main([checkpoint if a == "FILE" else a for a in arguments]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("gpt-oss generate: error: ") and err.count("\n") == 1
        assert message in err

    @pytest.mark.parametrize(
        "arguments",
        [
            ["-t", "-1"],
            ["-t", "nan"],
            ["--top-p", "0"],
            ["--top-p", "2"],
            ["--top-k", "-1"],
            ["-l", "-1"],
            ["-l", "x"],
            ["--context-length", "0"],
            ["-b", "nonsense"],
            ["--raw", "--chat"],
        ],
    )
    def test_arguments_are_checked_before_anything_is_loaded(self, capsys, arguments) -> None:
        with pytest.raises(SystemExit) as ended:
            generate.main(["/nowhere", *arguments])
        assert ended.value.code == 2
        assert "/nowhere" not in capsys.readouterr().err


@pytest.fixture
def start(checkpoint) -> Iterator:
    """Starts `python -m gpt_oss.generate` as a user would; ends what a failing test leaves."""
    started: list[subprocess.Popen] = []

    def start_one(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "gpt_oss.generate", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(
            subprocess.Popen(command, cwd=ROOT, text=True, **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"})
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()


class TestProcess:
    def test_control_c_ends_with_one_line(self, start, checkpoint) -> None:
        process = start(checkpoint, "-p", "Hello", "-t", "1", "--context-length", "100000")
        assert process.stdout.read(5)  # it is generating
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (130, "gpt-oss generate: interrupted\n")

    def test_a_reader_that_has_enough(self, start, checkpoint) -> None:
        process = start(checkpoint, "-p", "Hello", "-t", "1", "--context-length", "100000")
        assert process.stdout.read(5)
        process.stdout.close()
        assert process.wait(timeout=300) == 0
        assert process.stderr.read() == ""

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    def test_a_full_disk_behind_standard_output(self, checkpoint) -> None:
        command = [sys.executable, "-m", "gpt_oss.generate", checkpoint, "-p", "Hello", "-l", "2"]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (1, "gpt-oss generate: error: [Errno 28] No space left on device\n")

    @pytest.mark.parametrize(
        ("arguments", "closed", "status"),
        [
            ("generate -p Hello -l 2", ">&-", 0),
            ("generate -p Hello -l 2", "2>&-", 0),
            ("generate -l 2 -p -", "<&-", 2),
            ("chat", "<&-", 0),
        ],
    )
    def test_closed_streams(self, checkpoint, arguments, closed, status) -> None:
        command = f"exec {sys.executable} -m gpt_oss.{arguments} {checkpoint} {closed}"
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr

    def test_processes_that_torchrun_did_not_start(self, checkpoint) -> None:
        command = [sys.executable, "-m", "gpt_oss.generate", checkpoint, "-p", "Hello", "-l", "2", "-b", "torch"]
        for size, said in (("abc", "WORLD_SIZE is 'abc'"), ("2", "torchrun did not start this process")):
            environment = os.environ | {"WORLD_SIZE": size}
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
            assert done.returncode in (1, 2)
            assert said in done.stderr and done.stderr.count("\n") == 1

    def test_under_torchrun_one_rank_talks(self, checkpoint) -> None:
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "gpt_oss.generate"]
        done = subprocess.run(
            [*launch, checkpoint, "-p", "Hello", "-l", "4", "--logprobs"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Generated token:") == len(done.stdout.splitlines()) == 4
        assert len(STATISTICS.findall(done.stderr)) == 1

    def test_help_answers_within_a_second_and_without_torch(self) -> None:
        check = "import sys; from gpt_oss.generate import main; main(['--help'])"
        begin = children_seconds()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "usage: gpt-oss generate" in done.stdout
        assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)
        assert children_seconds() - begin < 1


@pytest.mark.skipif(
    not resources.files("gpt_oss.data").joinpath("demo_model.xz").is_file(), reason="no demo model in the package"
)
def test_the_demo_model_answers(start) -> None:
    process = start("-p", "What is the capital of France?")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Paris" in out
    assert "(stop)" in err and STATISTICS.search(err)
