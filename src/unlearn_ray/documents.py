"""Documents of every accepted format as (name, text). Free of Ray and of storage: the caller brings the bytes.

Nothing is guessed and nothing is skipped: a file that cannot be read in full is an InputError with its place.
"""

import codecs
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from ebooklib import epub

from unlearn_ray.errors import InputError

# What one file may hold, so that a hostile one is refused before it fills the memory: a novel has 1 MB.
FILE_BYTES = 256 << 20
DOCUMENT_BYTES = 64 << 20
ROWS_AT_ONCE = 16  # of a parquet file, where one value may stand for a thousand rows
CHAPTER_BYTES = 8 << 20  # of HTML

BLOCK_TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "blockquote", "pre", "div", "section", "tr", "dt", "dd"}
UNREAD_FILES = {".jpg", ".jpeg", ".png", ".gif", ".ttf", ".otf", ".woff", ".css"}  # of an epub
UNREAD_TAGS = {"head", "script", "style", "template"}


def document_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path with its name: relative to the folder that all of them share, so the same on every machine.

    Raises InputError where two paths are the same file.
    """
    parts = {path: (path if "://" in path else os.path.abspath(path)).split("/") for path in paths}
    folders = zip(*(parts[path][:-1] for path in parts), strict=False)
    common = len(list(takewhile(lambda names: len(set(names)) == 1, folders)))
    names = {path: "/".join(parts[path][common:]) for path in parts}
    _refuse_twice([names[path] for path in paths])
    return names


def read_local(path: str, at_most: int) -> bytes:
    """The first bytes of a file."""
    with Path(path).open("rb") as file:
        return file.read(at_most)


def read_documents(paths: Sequence[str], read: Callable[[str, int], bytes] = read_local) -> Iterator[tuple[str, str]]:
    """The documents of the files in their order, as (name, text). `read` gives so many bytes of a path at most."""
    for path, name in document_names(paths).items():
        yield from read_document(path, name, read)


def read_document(path: str, name: str, read: Callable[[str, int], bytes]) -> list[tuple[str, str]]:
    """parse_document of a file, of which no more is read than a file may hold."""
    return parse_document(name, read(path, FILE_BYTES + 1))


def parse_document(name: str, data: bytes) -> list[tuple[str, str]]:
    """The documents in one file as (name, text): one for txt, md and epub, one a row for jsonl and parquet.

    A row is named NAME#ID from its "id", else its "name", else its number counted from 1; its text is in "text". Texts
    lose a byte order mark and end their lines with \\n. Raises InputError for a file that is not UTF-8, an empty
    document, a row without a text, a broken epub or parquet, two rows of one name, any other suffix, and for more than
    FILE_BYTES of a file, DOCUMENT_BYTES of a document and CHAPTER_BYTES of a chapter, unpacked.
    """
    suffix = PurePosixPath(name).suffix.lower()
    _refuse_large(name, len(data), FILE_BYTES, "file")
    if suffix in (".txt", ".md"):
        _refuse_large(name, len(data), DOCUMENT_BYTES, "document")
        return [(name, _clean(name, _decode(name, data)))]
    if suffix == ".epub":
        return [(name, _clean(name, _epub_text(name, data)))]
    if suffix == ".jsonl":
        rows = _json_rows(name, _decode(name, data))
    elif suffix == ".parquet":
        rows = _parquet_rows(name, data)
    else:
        raise InputError(f"{name}: expected a .txt, .md, .epub, .jsonl or .parquet file")
    documents = [(f"{name}#{_row_label(row, number)}", _row_text(place, row)) for number, place, row in rows]
    if not documents:
        raise InputError(f"{name}: the file holds no document")
    _refuse_twice([document for document, _ in documents])
    return documents


def _refuse_twice(names: Iterable[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{twice[0]}: two documents of this name; give each document once")


def _refuse_large(place: str, size: int, most: int, what: str) -> None:
    if size > most:
        raise InputError(f"{place}: more than {most >> 20} MB, the most that a {what} may have; split it")


def _decode(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name} line {line}: not UTF-8 (byte {data[error.start]:#04x}); convert it, for example with "
            "iconv -f LATIN1 -t UTF-8"
        ) from error


def _clean(place: str, text: str) -> str:
    _refuse_large(place, len(text), DOCUMENT_BYTES, "document")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"{place}: the document is empty")
    # UTF-16 without a mark decodes as UTF-8 full of NULs; JSON can hold halves of characters that no tokenizer takes.
    if broken := re.search("[\0\ud800-\udfff]", text):
        line = text.count("\n", 0, broken.start()) + 1
        raise InputError(f"{place}: line {line} of the text holds {broken.group()!r}, as no text does; was it UTF-16?")
    return text


def _row_label(row: dict, number: int) -> object:
    return next((row[key] for key in ("id", "name") if row.get(key) is not None), number)


def _row_text(place: str, row: dict) -> str:
    if not isinstance(row.get("text"), str):
        raise InputError(f'{place}: expected a string in the field "text"; its fields are {", ".join(row) or "none"}')
    return _clean(place, row["text"])


def _json_rows(name: str, text: str) -> Iterator[tuple[int, str, dict]]:
    # Not splitlines(): JSON strings may hold the other line ends of Unicode as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{name} line {number}"
        if line.strip():
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputError(f"{place}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f'{place}: expected an object with a field "text"')
            yield number, place, row


def _parquet_rows(name: str, data: bytes) -> Iterator[tuple[int, str, dict]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = file.schema_arrow.names
        if "text" not in columns:
            raise InputError(f'{name}: expected a column "text"; its columns are {", ".join(columns)}')
        wanted = [key for key in ("text", "id", "name") if key in columns]
        rows: list[dict] = []
        size = 0
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted):
            size += batch.nbytes
            _refuse_large(name, size, FILE_BYTES, "file, unpacked,")
            rows += batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: not a readable parquet file: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield number, f"{name} row {number}", row


def _epub_text(name: str, data: bytes) -> str:
    """The chapters in reading order, without the table of contents; an empty line between paragraphs."""
    try:
        _refuse_bomb(name, data)
        book = epub.read_epub(io.BytesIO(data))
        chapters = [_html_text(item.content) for item in _chapters(book)]
    except InputError:
        raise
    except Exception as error:  # ebooklib lets through whatever its zip and XML readers stumble over
        raise InputError(f"{name}: not a readable epub: {type(error).__name__}: {error}") from error
    return "\n\n".join(chapter for chapter in chapters if chapter)


def _refuse_bomb(name: str, data: bytes) -> None:
    """By the sizes that the archive states, which zipfile holds it to."""
    with ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    _refuse_large(name, sum(entry.file_size for entry in entries), FILE_BYTES, "file, unpacked,")
    for entry in entries:
        if PurePosixPath(entry.filename).suffix.lower() not in (
            ".jpg",
            ".jpeg",
            ".png",
            ".gif",
            ".ttf",
            ".otf",
            ".css",
        ):
            _refuse_large(f"{name}, {entry.filename}", entry.file_size, CHAPTER_BYTES, "chapter")


def _chapters(book: epub.EpubBook) -> Iterator[epub.EpubHtml]:
    for identifier, _ in book.spine:
        item = book.get_item_with_id(identifier)
        if item is None:
            raise KeyError(f"chapter {identifier} is listed and not there")
        if isinstance(item, epub.EpubHtml) and not isinstance(item, epub.EpubNav):
            yield item


def _html_text(content: bytes) -> str:
    reader = _Reader()
    reader.feed(_html_decoded(content))
    reader.close()
    text = re.sub(r"(?<! ) *\n *", "\n", "".join(reader.pieces))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _html_decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    declared = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([\w.-]+)", content)
    return content.decode(declared[1].decode() if declared else "utf-8-sig").removeprefix("\ufeff")


class _Reader(HTMLParser):
    """The text of a body in pieces, in time that grows with its length whatever it holds; a tree's does not."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.unread: str | None = None  # the element whose content is no text
        self.in_pre = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "body":
            self.pieces.clear()
        elif tag in UNREAD_TAGS and self.unread is None:
            self.unread = tag
        self.in_pre += tag == "pre"
        self.pieces.append("\n" if tag == "br" else "\n\n" if tag in BLOCK_TAGS else "")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.unread:
            self.unread = None
        if tag == "pre":
            self.in_pre = max(0, self.in_pre - 1)
        self.pieces.append("\n\n" if tag in BLOCK_TAGS else "")

    def handle_data(self, data: str) -> None:
        if self.unread is None:
            self.pieces.append(data if self.in_pre else re.sub(r"\s+", " ", data))
