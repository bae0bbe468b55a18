"""The C tokenizer against tiktoken, on text that finds the seams of the split."""

import random
import re
import runpy
import time
from pathlib import Path
from types import ModuleType

import pytest
import tiktoken

from gpt_oss.errors import RequestError
from gpt_oss.tokenizer import SPECIAL_TOKENS, get_tokenizer
from tests.metal.emulated import METAL

# Every class of the split pattern, its literal characters, and what regular expressions get wrong: marks without a
# letter, title case, letters that fold into others, white space beyond ASCII, newlines, digits beyond ASCII.
ATOMS = [
    *"aZ0 \n\r\t/'_-.,;!$",
    *["'s", "'T", "'RE", "'vE", "'m", "'ll", "'d", "'\u017f", "'l", "'r", "\u2019s"],
    *["\u01c5", "\u02b0", "\u4e2d", "\u0301", "\u0e33", "\u00df", "\u0130", "\u1e9e", "\u10d0", "\u2c2f", "\u03c2"],
    *["\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "\u200d", "\ufeff", "\u180e", "\x1c", "\x0b", "\x00"],
    *["\u0661", "\u00b2", "\u2167", "\u3007", "\U0001d7d8"],
    *["\U0001f469", "\U0001f3fd", "\U0001f1e9", "\u2764\ufe0f", "\U00020000", "\U000e0041", "\U0010ffff", "\ud7ff"],
]
WORDS = [
    "def __init__(self, x: int = 0) -> None:\n        return self.x\n",
    "https://example.com/a/b-c?d=1&e=%20#f ",
    "don't WE'LL I'm it's O'Brien'S rock'n'roll ",
    "Größe ÇA naïve façade Ωμέγα Привет мир ",
    "日本語のテキスト、中文文本。한국어 ",
    "हिन्दी ภาษาไทย العربية עברית ",
    "CamelCaseHTTPServer snake_case SCREAMING_CASE x86_64 ",
    "1234567 3.14159 1,000,000 0xDEADBEEF 2024-01-01T00:00:00Z ",
    "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽 ",
    "\n\n\n   \n \t\n",
    "                                   ",
    "\r\n\r\n// ----- ===== >>> <<< /* */ ///\n",
    "<|start|>user<|message|>hi<|end|>",
    "Supercalifragilisticexpialidocious antidisestablishmentarianism ",
]


@pytest.fixture(scope="session")
def tokenizer(extension: ModuleType, demo_model_file: Path):
    return extension.Model(demo_model_file).tokenizer


@pytest.fixture(scope="session")
def reference() -> tiktoken.Encoding:
    return get_tokenizer()


def check(tokenizer, reference: tiktoken.Encoding, text: str) -> None:
    found, expected = tokenizer.encode(text), reference.encode_ordinary(text)
    if found != expected:
        at = next((n for n, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), 0)
        before = reference.decode(expected[:at])
        pytest.fail(f"differs after {before[-40:]!r}: {found[at : at + 5]} instead of {expected[at : at + 5]}")


def random_text(source: random.Random, atoms: list[str], count: int) -> str:
    return "".join(source.choice(atoms) * source.choice([1, 1, 1, 2, 3, 5]) for _ in range(count))


@pytest.mark.parametrize("seed", range(4))
def test_random_atoms(tokenizer, reference: tiktoken.Encoding, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(1500):
        check(tokenizer, reference, random_text(source, ATOMS, source.randrange(1, 12)))


def test_large_random_texts(tokenizer, reference: tiktoken.Encoding) -> None:
    source = random.Random(10)
    check(tokenizer, reference, random_text(source, ATOMS, 50_000))
    check(tokenizer, reference, random_text(source, WORDS, 5_000))
    check(tokenizer, reference, random_text(source, ATOMS + WORDS, 20_000))


@pytest.mark.slow
def test_the_class_of_every_character_is_that_of_tiktokens_engine() -> None:
    script = runpy.run_path(str(METAL / "scripts" / "create-unicode-classes.py"))
    header = (METAL / "src" / "unicode_classes.h").read_text()
    table = [int(run, 16) for run in re.findall(r"0x[0-9A-F]+", header)]
    assert table == script["runs_of"](script["class_of_every_point"]()), (
        "run gpt_oss/metal/scripts/create-unicode-classes.py"
    )


def test_characters_in_surroundings(tokenizer, reference: tiktoken.Encoding) -> None:
    ranges = [
        (0, 0x3400),
        (0xA000, 0xAC00),
        (0xF900, 0x12000),
        (0x16000, 0x17000),
        (0x1AFF0, 0x1FB00),
        (0xE0000, 0xE0200),
    ]
    points = [chr(point) for start, stop in ranges for point in range(start, stop)]
    for before, after in (("", "a"), ("A", " "), (" ", "1"), ("'", "\n")):
        check(tokenizer, reference, "".join(f"{before}{character}{after}" for character in points))


def test_source_code_of_this_repository(tokenizer, reference: tiktoken.Encoding) -> None:
    for path in sorted(Path(__file__).parents[2].glob("gpt_oss/*.py")):
        check(tokenizer, reference, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("character", [" ", "a", "\n", "中", "=", "\u0301", "A"])
def test_two_hundred_thousand_of_one_character_in_under_a_second(
    tokenizer, reference: tiktoken.Encoding, character: str
) -> None:
    text = character * 200_000
    start = time.process_time()
    found = tokenizer.encode(text)
    assert time.process_time() - start < 1
    assert found == reference.encode_ordinary(text)


def test_bytes_that_are_not_utf8(tokenizer, reference: tiktoken.Encoding) -> None:
    source = random.Random(20)
    bad = [b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"]
    for _ in range(2000):
        parts = [source.choice(ATOMS).encode() for _ in range(source.randrange(6))]
        parts.insert(source.randrange(len(parts) + 1), source.choice(bad))
        text = b"".join(parts)
        assert tokenizer.encode(text) == reference._encode_bytes(text), text
        assert tokenizer.decode(tokenizer.encode(text)) == text
    text = source.randbytes(50_000)
    assert tokenizer.encode(text) == reference._encode_bytes(text)


def test_half_a_surrogate_pair_is_treated_as_by_tiktoken(tokenizer, reference: tiktoken.Encoding) -> None:
    for text in ("a\ud83db", "\udc00", "\ud83d\ude00 \ud83d"):
        assert tokenizer.encode(text) == reference.encode_ordinary(text)


def test_every_id_is_decoded(tokenizer, reference: tiktoken.Encoding) -> None:
    assert tokenizer.decode(range(199_998)) == reference.decode_bytes(range(199_998))
    names = {token: name for name, token in SPECIAL_TOKENS.items()}
    for token in range(199_998, 201_088):
        assert tokenizer.decode(token).decode() == names[token]
    assert tokenizer.decode([]) == b""
    for token in (201_088, 2**32 - 1, 2**32, -1):
        with pytest.raises(RequestError, match=rf"{token}"):
            tokenizer.decode(token)


def test_special_tokens_by_name(tokenizer) -> None:
    for name, token in SPECIAL_TOKENS.items():
        if token < 200_014:
            assert tokenizer.encode_special_token(name) == token
    assert tokenizer.encode_special_token("<|refusal|>") == 200_013
    assert tokenizer.encode_special_token("<|untrusted|>") == 200_000
    for name in ("<|endofprompt|>", "<|end_untrusted|>", "hello", ""):
        with pytest.raises(RequestError, match="has no special token"):
            tokenizer.encode_special_token(name)


def test_counts(tokenizer) -> None:
    assert (tokenizer.num_text_tokens, tokenizer.num_special_tokens, tokenizer.num_tokens) == (199_998, 16, 200_014)


def test_other_types_are_refused(tokenizer) -> None:
    for wrong in (1, None, ["a"]):
        with pytest.raises(TypeError, match="expected str or bytes"):
            tokenizer.encode(wrong)
    for wrong in (None, 1.5):
        with pytest.raises(TypeError):
            tokenizer.decode(wrong)


def test_the_tokenizer_outlives_its_model(extension: ModuleType, demo_model_file: Path) -> None:
    model = extension.Model(demo_model_file)
    tokenizer = extension.Tokenizer(model)
    del model
    assert tokenizer.decode(tokenizer.encode("still here")) == b"still here"
