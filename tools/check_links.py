"""Check the links of pages without a network: every file and every anchor that they name must exist.

python tools/check_links.py FOLDER_OR_PAGE...
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and anchors of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to, and the anchor that it is."""
        for name, value in attrs:
            if value and (tag, name) in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def links_of(path: Path) -> list[str]:
    """Return the links in an HTML or Markdown file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(r"\]\(([^)\s]+)\)", text)
    return parse(text).links


def parse(text: str) -> Page:
    """Return the page in a text."""
    page = Page()
    page.feed(text)
    return page


def broken(path: Path) -> list[str]:
    """Return the links of a file that lead nowhere."""
    found = []
    for link in links_of(path):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = path.parent / unquote(parts.path) if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        missing = not target.is_file()
        if not missing and parts.fragment and target.suffix == ".html":
            missing = unquote(parts.fragment) not in parse(target.read_text(encoding="utf-8")).anchors
        if missing:
            found.append(link)
    return found


def main(names: list[str]) -> int:
    """Print the broken links of pages and of all pages in folders; return the exit status."""
    roots = [Path(name) for name in names]
    pages = [page for root in roots for page in ([root] if root.is_file() else sorted(root.rglob("*.html")))]
    failures = [f"{page}: {link}" for page in pages for link in broken(page)]
    print("\n".join(failures) or f"{len(pages)} pages, no broken link.")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
