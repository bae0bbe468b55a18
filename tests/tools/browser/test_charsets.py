"""Which character set a page is read in."""

import pytest

from gpt_oss.tools.simple_browser.charsets import decode_page

WORDS = "Grüße — café"


@pytest.mark.parametrize(
    ("body", "header", "is_html", "text"),
    [
        (WORDS.encode(), None, True, WORDS),
        (WORDS.encode("cp1252"), None, True, WORDS),
        (WORDS.encode("cp1252"), "iso-8859-1", True, WORDS),
        (WORDS.encode("cp1252"), "ISO-8859-1", False, WORDS),
        (WORDS.encode(), "no-such-set", True, WORDS),
        (WORDS.encode(), "base64", True, WORDS),
        (WORDS.encode("utf-16"), None, True, WORDS),
        (b"\xef\xbb\xbf" + WORDS.encode(), "latin-1", True, WORDS),
        ('<meta charset="koi8-r">привет'.encode("koi8-r"), None, True, '<meta charset="koi8-r">привет'),
        ("<meta charset=Shift_JIS>日本語①".encode("cp932"), None, True, "<meta charset=Shift_JIS>日本語①"),
        ("<meta charset=gb2312>漢字鎔".encode("gb18030"), None, True, "<meta charset=gb2312>漢字鎔"),
        (
            b'<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-2">\xb1',
            None,
            True,
            '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-2">ą',
        ),
        (
            b'<?xml version="1.0" encoding="windows-1251"?>\xe0',
            None,
            True,
            '<?xml version="1.0" encoding="windows-1251"?>а',
        ),
        ("<meta charset=utf-16>é".encode(), None, True, "<meta charset=utf-16>é"),
        ("<meta charset=koi8-r>é".encode(), "utf-8", True, "<meta charset=koi8-r>é"),
        ("<meta charset=koi8-r>é".encode(), None, False, "<meta charset=koi8-r>é"),
        ("é".encode() * 10 + b"\xff", None, True, "é" * 10 + "\ufffd"),
        (b"", None, True, ""),
    ],
)
def test_decoding(body: bytes, header: str | None, is_html: bool, text: str) -> None:
    assert decode_page(body, header, is_html) == text
