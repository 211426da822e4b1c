"""Documents become passages: text, Markdown, HTML, PDF and JSON lines, split where sections and paragraphs end."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from seal_jax.domains.knowledge.corpus import Passage, check_letters
from seal_jax.errors import UserError
from seal_jax.lab import passage

LONGEST = 2000  # characters of a passage
# Of plain text: a short first line that ends no sentence, with a blank line and words after it.
TITLE = re.compile(r"\s*([^\n]{1,79}[^\n.!?:;,\s])[ \t]*\n[ \t]*\n(?=.*\w)", re.DOTALL)
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)


def read_documents(paths: Sequence[str], longest: int = LONGEST) -> list[Passage]:
    """The passages of all documents, in order. Raises UserError for a file that cannot be read or holds no text."""
    from semantic_text_splitter import MarkdownSplitter

    splitter, found = MarkdownSplitter(longest), []
    for path in paths:
        for title, text in _sections(Path(path)):
            chunks = [_plain(chunk) for chunk in splitter.chunks(text)]
            found += [passage(title, chunk) for chunk in chunks if any(letter.isalnum() for letter in chunk)]
    if not found:
        raise UserError(f"{', '.join(paths)}: no text was found to learn; give a document with words in it")
    return found


def _sections(path: Path) -> list[tuple[str, str]]:
    """(title, text as Markdown) of each part of a file that has a title of its own."""
    kind = path.suffix.lower()
    if kind not in READERS:
        known = ", ".join(sorted(READERS))
        raise UserError(f"{path}: {kind or 'a file without an ending'} cannot be read; give one of {known}")
    try:
        return READERS[kind](path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); name a file that is there") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error.reason}); save it as UTF-8") from error


def _from_text(path: Path) -> list[tuple[str, str]]:
    text = path.read_text(encoding="utf-8-sig")
    heading = HEADING.search(text)
    if heading:
        return [(heading[1], text)]
    title = TITLE.match(text)
    return [(title[1], text[title.end() :])] if title else [(_name(path), text)]


def _from_lines(path: Path) -> list[tuple[str, str]]:
    """JSON objects with `text` (or `context`), perhaps `title`, one on a line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            text = f"{path}, line {number} is not JSON ({error}); give an object with 'text' on each line"
            raise UserError(text) from error
        text = value.get("text", value.get("context")) if isinstance(value, dict) else None
        title = value.get("title", _name(path)) if isinstance(value, dict) else None
        if not isinstance(text, str) or not isinstance(title, str) or not title.strip():
            raise UserError(f"{path}, line {number} has no text 'text' or an odd 'title'; mend or remove the line")
        check_letters(title, f"{path}, line {number}", "title")
        check_letters(text, f"{path}, line {number}", "text")
        found.append((title, text))
    return found


def _from_html(path: Path) -> list[tuple[str, str]]:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(path.read_bytes(), "html.parser")
    for part in page(["script", "style", "nav", "header", "footer", "noscript"]):
        part.decompose()
    heading = page.find("h1") or page.find("title")
    title = heading.get_text(" ", strip=True) if heading else ""
    body = page.body or page
    blocks = body.find_all(["p", "li", "td", "pre", "blockquote"])
    texts = [block.get_text(" ", strip=True) for block in blocks if block.find(["p", "li", "td"]) is None]
    return [(title or _name(path), "\n\n".join(texts or [body.get_text(" ", strip=True)]))]


def _from_pdf(path: Path) -> list[tuple[str, str]]:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        pages = [page.extract_text() for page in PdfReader(path).pages]
    except (PyPdfError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a PDF ({error}); give it as text") from error
    joined = [re.sub(r"-\n(?=[a-z])", "", text) for text in pages]  # words that were divided at the end of a line
    return [(_name(path), "\n\n".join(re.sub(r"(?<!\n)\n(?!\n)", " ", text) for text in joined))]


READERS: dict[str, Callable[[Path], list[tuple[str, str]]]] = {
    ".txt": _from_text, ".md": _from_text, ".markdown": _from_text, ".jsonl": _from_lines, ".html": _from_html,
    ".htm": _from_html, ".pdf": _from_pdf,
}  # fmt: skip


def _name(path: Path) -> str:
    return re.sub(r"[_\-]+", " ", path.stem).strip() or path.name


def _plain(text: str) -> str:
    """Without Markdown's headings, marks of emphasis and links' targets; paragraphs and list entries a line each."""
    text = HEADING.sub("", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(\*\*|__|`)", "", text)
    text = re.sub(r"^[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+", "\n\n", text, flags=re.MULTILINE)
    return "\n".join(" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", text) if part.strip())
