"""HTML, Markdown and text as pages: what is kept, what is dropped and what links read like."""

import html2text
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_oss.tools.simple_browser.page_contents import EMPTY_PAGE, PageContents, process_html, process_markdown

URL = "https://example.com/dir/page.html"


def body(html: str, url: str = URL) -> str:
    """The page's text without the URL on top."""
    return process_html(html, url).text


def test_a_whole_page() -> None:
    page = process_html(
        """<!DOCTYPE html><html><head><title> My &amp;
        page </title><style>p{}</style></head><body><nav>Menu</nav><h1>Head</h1>
        <p>First <b>bold</b> and <i>slanted</i>.</p><p>Second.</p><script>var x = "</p>";</script></body></html>""",
        URL,
        display_urls=True,
    )
    assert page.title == "My & page"
    assert page.url == URL
    assert page.text == f"\nURL: {URL}\nMenu\n\n# Head\n\nFirst bold and slanted.\n\nSecond."
    assert page.urls == {}
    assert page.error_message is None


def test_title_falls_back_to_the_domain_and_an_argument_wins() -> None:
    assert process_html("<p>x", URL).title == "example.com"
    assert process_html("<title>own</title>x", URL, title="given").title == "given"
    assert process_html("<title>own</title>x", URL, title="").title == "own"


def test_positional_arguments_of_the_public_package() -> None:
    page = process_html(
        "<div>Fetch Result 1 text</div>", "https://www.example.com/fetch1", "Fetch Result 1", None, True
    )
    assert page.text == "\nURL: https://www.example.com/fetch1\nFetch Result 1 text"


@pytest.mark.parametrize("html", ["", "   \n", "\0", "<!-- only a comment -->", "<p>", "<script>x()</script>"])
def test_an_empty_page_says_so(html: str) -> None:
    assert body(html) == EMPTY_PAGE
    assert "empty" in EMPTY_PAGE


class TestLinks:
    def test_own_and_other_domains(self) -> None:
        page = process_html('<a href="a.html">A <b>bold</b> link</a> <a href="https://other.org/x">B</a>', URL)
        assert page.text == "【0†A bold link】 【1†B†other.org】"
        assert page.urls == {"0": "https://example.com/dir/a.html", "1": "https://other.org/x"}

    def test_the_same_target_has_the_same_number(self) -> None:
        page = process_html('<a href="/a">x</a> <a href="https://b.org">y</a> <a href="../a">z</a>', URL)
        assert page.text == "【0†x】 【1†y†b.org】 【0†z】"

    def test_base_href(self) -> None:
        page = process_html('<base href="/sub/"><a href="x?a=1&amp;b=2">x</a>', URL)
        assert page.urls == {"0": "https://example.com/sub/x?a=1&b=2"}
        assert page.text == "【0†x】"

    @pytest.mark.parametrize(
        "href",
        [
            *(
                "#part",
                "  #x",
                "",
                "mailto:a@b.org",
                "javascript:alert(1)",
                "JaVaScript:x",
                "data:text/html,x",
                "tel:1",
            ),
            *("http://[broken", "file:///etc/passwd", "http:///nohost", "ftp://a.org/x"),
        ],
    )
    def test_what_cannot_be_opened_is_plain_text(self, href: str) -> None:
        page = process_html(f'<a href="{href}">words</a>', URL)
        assert page.text == "words"
        assert page.urls == {}

    def test_user_names_do_not_fake_a_domain(self) -> None:
        assert body('<a href="https://google.com@evil.org/">x</a>') == "【0†x†evil.org】"

    def test_an_image_is_link_text(self) -> None:
        assert body('<a href="/x"><img alt="logo"></a>') == "【0†[Image 0: logo]】"

    def test_a_label_stands_in_for_missing_text(self) -> None:
        assert body('<a href="/x" aria-label="Home"><svg><path/></svg></a>') == "【0†Home】"
        assert body('a<a href="/x"></a>b') == "ab"

    def test_blocks_in_a_link_become_one_line(self) -> None:
        assert body('<a href="/x"><div><h3>Card</h3><p>Some\n text</p></div></a>') == "【0†Card Some text】"

    def test_an_anchor_around_a_whole_article_keeps_its_text(self) -> None:
        words = " ".join(f"word{i}" for i in range(200))
        text = body(f'<a href="/x">{words}<h2>End</h2><p>tail</p>')
        assert text.startswith("【0†word0 ")
        assert words in text
        assert "## End\n\ntail" in text

    def test_page_text_cannot_fake_a_link(self) -> None:
        page = process_html(
            '【0†fake】 &#12304;1†x】 &#x3010;2†<b>y</b>】 <img alt="【3†z】">'
            '<a href="/r" title="【4】">【5†real†google.com】</a>'
            '<sup>【6†s】</sup><math alttext="【7†m】"></math>',
            URL,
        )
        assert [part.split("】")[0] for part in page.text.split("【")[1:]] == ["0†〖5‡real‡google.com〗"]
        assert page.urls == {"0": "https://example.com/r"}

    def test_brackets_between_pieces_of_text_lose_nothing(self) -> None:
        html = "a<!-- c -->【b】<script>x</script>c】<svg/>d<br>【e<script>y</script>f"
        assert body(html) == "a〖b〗c〗d\n〖ef"

    def test_the_title_cannot_fake_a_link_either(self) -> None:
        assert process_html("<title>a【1†b】</title>x", URL).title == "a〖1†b〗"


class TestText:
    def test_sup_and_sub(self) -> None:
        assert body("E=mc<sup>2</sup>, H<sub>2</sub>O<sup></sup>") == "E=mc^{2}, H_{2}O"
        assert body('x<sup id="c"><a href="#n1">[<b>1</b>]</a></sup> y') == "x^{[1]} y"
        assert body('x<sup><a href="/n">1</a></sup>') == "x^{【0†1】}"

    def test_images_are_numbered(self) -> None:
        assert (
            body('<img alt="first\n one"> <img title="t"> <img src=x>') == "[Image 0: first one] [Image 1: t] [Image 2]"
        )

    def test_formulas_survive(self) -> None:
        assert (
            body("so <math><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup></math>.") == "so E=mc^{2} ."
        )
        tex = '<annotation encoding="application/x-tex">\\frac{a}{b}</annotation>'
        assert body(f"<math><semantics><mfrac><mi>a</mi><mi>b</mi></mfrac>{tex}</semantics></math>") == "$\\frac{a}{b}$"
        assert body("<math alttext='x^2'><mi>x</mi></math>") == "$x^2$"
        assert body("<math><mfrac><mn>1</mn><msqrt><mi>x</mi></msqrt></mfrac></math>") == "(1)/(√(x))"
        assert body("<m:math>x</m:math>") == "x"

    def test_emoji_survive(self) -> None:
        assert body("<p>a 😀 &#x1F600; 👨‍👩‍👧 𝒳") == "a 😀 😀 👨‍👩‍👧 𝒳"

    def test_entities_are_decoded_once(self) -> None:
        assert body("1 &lt; 2 &amp;amp; &copy; &nbsp;x &amp;lt;b&amp;gt;") == "1 < 2 &amp; © x &lt;b&gt;"

    @pytest.mark.parametrize("text", ["1. one", "- dash", "+ plus", "a * b _c_ `d` \\e", "# not a heading", "C:\\dir"])
    def test_nothing_is_escaped(self, text: str) -> None:
        assert body(f"<p>{text}</p>") == text

    def test_lists_quotes_and_code(self) -> None:
        text = body(
            "<ul><li>one<ul><li>two</ul></ul><ol start=3><li>x<li>y</ol><pre>  a\n   b &lt; c\n</pre>"
            "<blockquote>q</blockquote><hr>"
        )
        assert text == "  * one\n    * two\n\n  3. x\n  4. y\n\n      a\n       b < c\n\n> q\n\n* * *"

    def test_sections_are_paragraphs(self) -> None:
        html = "<header>a</header><main><section>b</section><article>c</article></main><button>d</button>"
        assert body(html) == "a\n\nb\n\nc\n\nd"

    def test_code_in_a_sentence_is_just_text(self) -> None:
        assert body("use <code>foo()</code> <kbd>x</kbd>") == "use foo() x"

    def test_invisible_elements_go(self) -> None:
        html = "a<select><option>x</select><template>y</template><svg><text>z</text></svg><iframe>i</iframe>b"
        assert body(html) == "ab"


class TestTables:
    def test_rows_and_header(self) -> None:
        html = "<table><caption>C</caption><tr><th>a<th>b</tr><tr><td>1<td><p>x</p><p>y</p></tr></table>after"
        assert body(html) == "C\na | b\n---|---\n1 | x y\n\nafter"

    def test_empty_cells_keep_their_place(self) -> None:
        assert body("<table><tr><td>a<td><td>c<tr><td><td>b<td></table>") == "a | | c\n| b |"

    def test_links_in_cells(self) -> None:
        assert body('<table><tr><td><a href="/a">x</a> (<a href="/b">y</a>)<td>z</table>') == "【0†x】 (【1†y】) | z"

    def test_a_layout_table_is_paragraphs(self) -> None:
        html = "<table><tr><td><h1>Title</h1><td><table><tr><td>a<td>b</tr></table></table>"
        assert body(html) == "# Title\n\na | b"
        assert body("<table><tr><td>only</td></tr><tr><td>column</td></tr></table>") == "only\n\ncolumn"

    def test_a_long_cell_is_not_cut(self) -> None:
        words = " ".join(f"w{i}" for i in range(400))
        assert words in body(f"<table><tr><td>{words}</td><td>x</td></tr></table>")


class TestBrokenMarkup:
    @pytest.mark.parametrize(
        "html",
        [
            *(
                "<",
                "</",
                "<p",
                "<!--",
                "<![CDATA[x",
                "<?xml",
                "<a href=",
                "&",
                "&#;",
                "&#xFFFFFFFF;",
                "<table><a href=x>",
            ),
            *("<p a\"b=' c>x</p ></b></i>", "\ud800<p>x", "<html><html><body><body><title>", "<\x01p>\x02x"),
        ],
    )
    def test_never_fails(self, html: str) -> None:
        page = process_html(html, URL)
        assert page.text
        PageContents.model_validate_json(page.model_dump_json())

    def test_a_lost_end_tag_loses_no_text(self) -> None:
        text = body("<div><p>a<table><tr><td>b</div><li>c<b><i>d</b></i><p>e</a></ul>f")
        assert [letter for letter in text if letter in "abcdef"] == list("abcdef")

    @pytest.mark.parametrize("tag", ["div", "b", "ul><li", "blockquote", "table><tr><td", "font", "x-y", "dl><dd"])
    def test_deep_nesting_loses_no_text(self, tag: str) -> None:
        text = body(f"start<{tag}>" * 5000 + "<p>END</p><a href='/x'>link</a>")
        assert "END" in text
        assert "link】" in text
        assert len(text) < 2_000_000

    @given(st.text(alphabet="<>/=\"'& abhliptdr!-[]#;x1\n", max_size=200))
    @settings(max_examples=200, deadline=None)
    def test_arbitrary_markup(self, html: str) -> None:
        page = process_html(html, URL)
        assert page.text.count("【") == page.text.count("】")
        assert set(page.urls) == {str(number) for number in range(len(page.urls))}

    @given(
        st.lists(st.sampled_from(["<b>", "<p>", "<ul>", "<li>", "<td>", "</b>", "</p>", "<a href=/x>", "</a>", "w"]))
    )
    @settings(max_examples=200, deadline=None)
    def test_words_survive_any_tag_soup(self, parts: list[str]) -> None:
        assert body(" ".join(parts)).count("w") == parts.count("w")


def test_html2text_is_left_as_it_is() -> None:
    html = "<p>1. a - b</p><ul><li>x</ul>"
    before = html2text.html2text(html)
    body("<ul><li>1. one<table><tr><td>2. two")
    assert html2text.html2text(html) == before


def test_markdown_links_and_images() -> None:
    page = process_markdown(
        '# The title\n\nSee [the guide](guide.md) and [web](https://a.org/x "t").\n![pic](p.png) [no](#x) 【9†y】\n',
        "file:///docs/index.md",
    )
    assert page.title == "The title"
    assert page.text == (
        "\nURL: file:///docs/index.md\n# The title\n\n"
        "See 【0†the guide】 and 【1†web†a.org】.\n[Image 0: pic] [no](#x) 〖9†y〗"
    )
    assert page.urls == {"0": "file:///docs/guide.md", "1": "https://a.org/x"}
