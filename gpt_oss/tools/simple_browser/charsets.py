"""Bytes of a page to text: byte order mark, HTTP header, the document's own declaration, then a guess."""

import codecs
import re

_DECLARATION = re.compile(
    rb"""<meta[^>]{0,300}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z0-9_.:-]{1,40})"""
    rb"""|<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([A-Za-z0-9_.:-]{1,40})""",
    re.IGNORECASE,
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The web's reading of some names (https://encoding.spec.whatwg.org/#names-and-labels): a superset is meant.
_WEB_NAMES = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "tis-620": "cp874",
}
_DECLARATION_BYTES = 4096


def decode_page(body: bytes, header_charset: str | None, is_html: bool) -> str:
    """Decode `body`; what does not fit the character set becomes U+FFFD, and an unknown set is ignored."""
    for mark, name in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    declared = _declared(body) if is_html else None
    for label in (header_charset, declared):
        codec = _codec(label) if label else None
        if codec:
            return body.decode(codec, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        # One bad byte in a UTF-8 page, or a cut at the end, is no reason to misread all of it.
        readable = error.start > 0 and not body[: error.start].isascii()
        return body.decode("utf-8" if readable else "cp1252", "replace")


def _declared(body: bytes) -> str | None:
    found = _DECLARATION.search(body[:_DECLARATION_BYTES])
    if found is None:
        return None
    label = (found.group(1) or found.group(2)).decode("ascii")
    # A declaration that could be read byte by byte is not in UTF-16, whatever it says.
    return "utf-8" if label.lower().startswith(("utf-16", "utf16")) else label


def _codec(label: str) -> str | None:
    try:
        info = codecs.lookup(label.strip().strip("\"'"))
    except (LookupError, ValueError):
        return None
    if not info._is_text_encoding:
        return None
    return _WEB_NAMES.get(info.name, info.name)
