"""A cleaned tree (see `html_cleaning`) as text in Markdown's shape: headings, lists, quotes, indented code.

html2text does the writing. It is configured per instance, nothing of the library is changed, and it is handed
the tree's events, so that markup is parsed once, by libxml2.
"""

from html2text import HTML2Text
from lxml import etree

from gpt_oss.tools.simple_browser.text import tidy


class _Writer(HTML2Text):
    """html2text without wrapping, emphasis marks and Markdown escapes: what the page says, exactly."""

    def __init__(self) -> None:
        super().__init__(bodywidth=0)
        self.unicode_snob = True
        self.ignore_links = True
        self.ignore_images = True
        self.ignore_emphasis = True
        self.ignore_tables = True

    def write(self, root: etree._Element) -> str:
        """Write all of `root`."""
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if event == "start":
                self.handle_tag(element.tag, element.attrib, True)
                self._write_text(element.text)
            else:
                self.handle_tag(element.tag, {}, False)
                self._write_text(element.tail)
        return self.finish()

    def _write_text(self, text: str | None) -> None:
        if text:
            # entity_char is html2text's name for "do not escape Markdown in this".
            self.handle_data(text, entity_char=True)


def tree_text(root: etree._Element) -> str:
    """Write the tree as tidy text; its full-width brackets are this package's link markup."""
    return tidy(_Writer().write(root))
