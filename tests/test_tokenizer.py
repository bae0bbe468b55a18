"""The vocabulary: complete, exact, and there without a network."""

import hashlib
import lzma
import os
import random
import shutil
import subprocess
import sys

import pytest

from gpt_oss import tokenizer
from gpt_oss.errors import VocabularyError
from gpt_oss.tokenizer import get_harmony_encoding, get_tokenizer, vocabulary_table

OFFLINE = """
from gpt_oss.tokenizer import get_harmony_encoding, get_tokenizer
print(get_tokenizer().encode("Hello, world"), get_harmony_encoding().encode("<|start|>", allowed_special="all"))
"""


def test_the_table_is_o200k_base():
    assert hashlib.sha256(vocabulary_table()).hexdigest() == tokenizer.TABLE_SHA256


def test_every_id_has_a_name_and_comes_back():
    encoding = get_tokenizer()
    assert encoding.n_vocab == 201_088
    for token in range(201_088):
        assert encoding.encode_single_token(encoding.decode_single_token_bytes(token)) == token


def test_special_tokens_have_the_ids_of_the_model():
    encoding = get_tokenizer()
    for name, token in {
        "<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003,
        "<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008, "<|call|>": 200012,
        "<|endofprompt|>": 200018, "<|reserved_200000|>": 200000, "<|reserved_201087|>": 201087,
    }.items():  # fmt: skip
        assert encoding.encode(name, allowed_special="all") == [token]
        assert get_harmony_encoding().encode(name, allowed_special="all") in ([token], encoding.encode_ordinary(name))
        assert len(encoding.encode(name, disallowed_special=())) > 1, "user text never becomes a control token"


def test_it_encodes_as_openai_harmony_does():
    alphabet = (
        "abc XYZ 0123 .,;!? \n\t\r é ß 漢字 かな 한국 🎉👩‍👩‍👧 '’\" <|start|> def f(x):\n    return x\u0301\u2028"
    )
    generator = random.Random()
    for _ in range(300):
        text = "".join(generator.choices(alphabet, k=generator.randrange(80)))
        assert get_tokenizer().encode(text, disallowed_special=()) == get_harmony_encoding().encode(
            text, disallowed_special=()
        )


@pytest.mark.skipif(
    shutil.which("unshare") is None, reason="unshare (util-linux) removes the network; not installed here"
)
def test_no_network_is_needed(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TIKTOKEN", "XDG"))} | {
        "HOME": str(tmp_path)
    }
    user_namespace = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "-n", *user_namespace, sys.executable, "-c", OFFLINE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.stdout == "[13225, 11, 2375] [200006]\n", done.stderr


def run_with_folder(folder):
    environment = os.environ | {"TIKTOKEN_ENCODINGS_BASE": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", OFFLINE], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_the_users_folder_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_ENCODINGS_BASE", str(tmp_path))
    with pytest.raises(VocabularyError, match=r"is set, but .*o200k_base\.tiktoken cannot be read"):
        vocabulary_table()
    (tmp_path / "o200k_base.tiktoken").write_bytes(b"IQ== 0\n")
    with pytest.raises(VocabularyError, match="is not the o200k_base table: SHA-256 "):
        vocabulary_table()
    packed = tokenizer.resources.files("gpt_oss.data").joinpath("o200k_base.tiktoken.xz").read_bytes()
    (tmp_path / "o200k_base.tiktoken").write_bytes(lzma.decompress(packed))
    done = run_with_folder(tmp_path)
    assert done.stdout == "[13225, 11, 2375] [200006]\n", done.stderr


def test_a_wrong_users_folder_is_one_sentence_for_both_encodings(tmp_path):
    done = run_with_folder(tmp_path / "nowhere")
    assert done.returncode != 0
    assert "VocabularyError: TIKTOKEN_ENCODINGS_BASE is set, but" in done.stderr


def test_both_encodings_load_in_several_threads_at_once():
    """The library is slow here, so that another thread would change the environment under it."""
    program = (
        "import os, sys, threading, time\n"
        "import openai_harmony\n"
        "load = openai_harmony.load_harmony_encoding\n"
        "def slow(name):\n"
        "    folder = os.environ['TIKTOKEN_ENCODINGS_BASE']\n"
        "    time.sleep(0.5)\n"
        "    assert os.environ.get('TIKTOKEN_ENCODINGS_BASE') == folder\n"
        "    return load(name)\n"
        "openai_harmony.load_harmony_encoding = slow\n"
        "from gpt_oss.tokenizer import get_harmony_encoding, get_tokenizer\n"
        "loads = [get_harmony_encoding, get_tokenizer] * 2\n"
        "failures = []\n"
        "threading.excepthook = failures.append\n"
        "threads = [threading.Thread(target=load) for load in loads]\n"
        "[thread.start() for thread in threads], [thread.join() for thread in threads]\n"
        "sys.exit(len(failures))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_loading_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.delenv("TIKTOKEN_ENCODINGS_BASE", raising=False)
    get_harmony_encoding.cache_clear()
    get_harmony_encoding()
    assert "TIKTOKEN_ENCODINGS_BASE" not in os.environ
