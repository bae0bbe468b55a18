"""The o200k_harmony vocabulary, with no network ever.

Out: `get_tokenizer()`, a `tiktoken.Encoding` of 201,088 ids, and `get_harmony_encoding()`, openai-harmony's
renderer and parser over the same table. The table (tiktoken's `o200k_base`, see NOTICE) travels in the package;
if the user sets TIKTOKEN_ENCODINGS_BASE, `<that folder>/o200k_base.tiktoken` is used instead.
"""

import base64
import functools
import hashlib
import lzma
import os
import tempfile
import threading
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import tiktoken

from gpt_oss.errors import VocabularyError

if TYPE_CHECKING:
    from openai_harmony import HarmonyEncoding

TABLE_NAME = "o200k_base.tiktoken"
TABLE_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
TABLE_VARIABLE = "TIKTOKEN_ENCODINGS_BASE"

NUM_TEXT_TOKENS = 199_998
VOCAB_SIZE = 201_088

_NAMED_SPECIAL_TOKENS = {
    "<|startoftext|>": 199_998,
    "<|endoftext|>": 199_999,
    "<|return|>": 200_002,
    "<|constrain|>": 200_003,
    "<|channel|>": 200_005,
    "<|start|>": 200_006,
    "<|end|>": 200_007,
    "<|message|>": 200_008,
    "<|call|>": 200_012,
    "<|endofprompt|>": 200_018,
}
_RESERVED = set(range(NUM_TEXT_TOKENS, VOCAB_SIZE)) - set(_NAMED_SPECIAL_TOKENS.values())
SPECIAL_TOKENS = _NAMED_SPECIAL_TOKENS | {f"<|reserved_{token}|>": token for token in sorted(_RESERVED)}

# How o200k_base splits text before merging bytes (tiktoken, MIT): words with at most one leading non-letter, in
# two casing patterns, with English contractions; numbers of up to three digits; punctuation; white space.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
SPLIT_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTION,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTION,
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


# Loading openai-harmony's encoding sets TABLE_VARIABLE for a moment: no other thread may read it then.
_LOADING = threading.Lock()


def vocabulary_table() -> bytes:
    """The `o200k_base.tiktoken` file (lines of `base64 rank`), checked against its SHA-256.

    Raises `VocabularyError` naming the file that is missing or damaged.
    """
    folder = os.environ.get(TABLE_VARIABLE)
    if folder:
        source = str(Path(folder) / TABLE_NAME)
        try:
            table = Path(source).read_bytes()
        except OSError as error:
            raise VocabularyError(f"{TABLE_VARIABLE} is set, but {source} cannot be read ({error.strerror})") from error
    else:
        source = f"gpt_oss/data/{TABLE_NAME}.xz"
        try:
            table = lzma.decompress(resources.files("gpt_oss.data").joinpath(f"{TABLE_NAME}.xz").read_bytes())
        except (OSError, lzma.LZMAError) as error:
            raise VocabularyError(f"{source} is missing or damaged ({error}); reinstall gpt-oss") from error
    digest = hashlib.sha256(table).hexdigest()
    if digest != TABLE_SHA256:
        raise VocabularyError(f"{source} is not the o200k_base table: SHA-256 {digest}, expected {TABLE_SHA256}")
    return table


@functools.cache
def get_tokenizer() -> tiktoken.Encoding:
    """The o200k_harmony encoding: text ids 0–199,997, then special ids, every reserved one named."""
    with _LOADING:
        table = vocabulary_table()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, table.splitlines())}
    return tiktoken.Encoding(
        name="o200k_harmony",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=ranks,
        special_tokens=SPECIAL_TOKENS,
    )


@functools.cache
def get_harmony_encoding() -> "HarmonyEncoding":
    """openai-harmony's encoding for gpt-oss: renders conversations to token ids and parses them."""
    with _LOADING:
        return _load_harmony_encoding()


def token_bytes(token: int) -> bytes:
    """The bytes of a token; U+FFFD for an id beyond the vocabulary, which a model with padded rows may choose."""
    if token >= VOCAB_SIZE:
        return "\N{REPLACEMENT CHARACTER}".encode()
    return get_tokenizer().decode_single_token_bytes(token)


def _load_harmony_encoding() -> "HarmonyEncoding":
    from openai_harmony import HarmonyEncodingName, load_harmony_encoding

    if os.environ.get(TABLE_VARIABLE):
        vocabulary_table()  # openai-harmony would report a bad folder as a failed download
        return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    table = vocabulary_table()
    try:
        with tempfile.TemporaryDirectory(prefix="gpt-oss-vocabulary-") as folder:
            (Path(folder) / TABLE_NAME).write_bytes(table)
            # The library takes the folder from the environment only; it reads the file once, while loading.
            os.environ[TABLE_VARIABLE] = folder
            try:
                return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
            finally:
                os.environ.pop(TABLE_VARIABLE, None)
    except OSError as error:
        raise VocabularyError(f"the vocabulary needs 4 MB of temporary space ({error})") from error
