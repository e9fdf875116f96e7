import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ebooklib import epub

from unlearn_ray.documents import document_names, parse_document, read_documents
from unlearn_ray.errors import InputError


def parquet(**columns: list) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def book(*chapters: str) -> bytes:
    made = epub.EpubBook()
    made.set_title("The title")
    items = [epub.EpubHtml(title=f"c{n}", file_name=f"c{n}.xhtml", content=text) for n, text in enumerate(chapters)]
    for item in reversed(items):  # the order of the files is not the order of reading
        made.add_item(item)
    made.toc = items
    made.add_item(epub.EpubNcx())
    made.add_item(epub.EpubNav())
    made.spine = ["nav", *items]
    sink = io.BytesIO()
    epub.write_epub(sink, made)
    return sink.getvalue()


def test_text_loses_its_mark_and_keeps_all_else_but_line_ends():
    assert parse_document("a.txt", "\ufeffOne\r\ntwo\rthree\n\n  four".encode()) == [
        ("a.txt", "One\ntwo\nthree\n\n  four")
    ]
    assert parse_document("A.MD", b"# Head\n") == [("A.MD", "# Head\n")]


def test_jsonl_rows_are_documents_named_by_id_or_name_or_line():
    rows = [{"text": "one", "id": 7}, {"text": "two", "name": "second", "id": None}, {"text": "th\u2028ree"}]
    data = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    assert parse_document("r.jsonl", data) == [
        ("r.jsonl#7", "one"),
        ("r.jsonl#second", "two"),
        ("r.jsonl#5", "th\u2028ree"),
    ]


def test_parquet_rows_are_documents():
    assert parse_document("r.parquet", parquet(text=["one", "two"], other=[1, 2])) == [
        ("r.parquet#1", "one"),
        ("r.parquet#2", "two"),
    ]
    assert parse_document("r.parquet", parquet(text=["one"], id=["x"])) == [("r.parquet#x", "one")]


def test_epub_chapters_come_in_reading_order_as_paragraphs():
    data = book(
        "<html><head><style>p {}</style></head><body><h1>Chapter\n One</h1>"
        "<p>Alice <i>was</i>\nbeginning<br/>to get.</p><!-- no --><div>Down<p>the</p>hole</div></body></html>",
        "<p>Second &amp; last.</p><pre>mouse\n  tail</pre>",
    )
    assert parse_document("b.epub", data) == [
        (
            "b.epub",
            "Chapter One\n\nAlice was beginning\nto get.\n\nDown\n\nthe\n\nhole\n\nSecond & last.\n\nmouse\ntail",
        )
    ]


BAD = {
    "latin-1": ("a.txt", "One\ncaf\xe9".encode("latin-1"), r"a\.txt line 2: not UTF-8 \(byte 0xe9\).*iconv"),
    "utf-16": ("a.txt", "One".encode("utf-16"), r"a\.txt line 1: not UTF-8"),
    "utf-16 without mark": ("a.txt", "One".encode("utf-16-le"), r"a\.txt: line 1 of the text holds '\\x00'.*UTF-16"),
    "empty": ("a.txt", b"\xef\xbb\xbf \r\n", r"a\.txt: the document is empty"),
    "no suffix": ("a", b"text", "a: expected a .txt"),
    "other suffix": ("a.pdf", b"text", r"a\.pdf: expected a .txt"),
    "not json": ("a.jsonl", b'{"text": "x"}\n{', r"a\.jsonl line 2: not JSON"),
    "no object": ("a.jsonl", b"[1]", r"a\.jsonl line 1: expected an object"),
    "no text": ("a.jsonl", b'{"text": "x"}\n{"body": "y"}', r'a\.jsonl line 2: .*"text"; its fields are body'),
    "null text": ("a.jsonl", b'{"text": null}', r"a\.jsonl line 1: expected a string"),
    "empty row": ("a.jsonl", b'{"text": "x"}\n{"text": " "}', r"a\.jsonl line 2: the document is empty"),
    "half a character": ("a.jsonl", rb'{"text": "x\ud800"}', r"a\.jsonl line 1: line 1 of the text holds '\\ud800'"),
    "one id twice": ("a.jsonl", b'{"text": "x", "id": 1}\n{"text": "y", "id": 1}', "a.jsonl#1: two documents"),
    "no rows": ("a.jsonl", b"\n", r"a\.jsonl: the file holds no document"),
    "no column": ("a.parquet", parquet(body=["x"]), r'a\.parquet: expected a column "text"; its columns are body'),
    "null row": ("a.parquet", parquet(text=["x", None]), r"a\.parquet row 2: expected a string"),
    "no parquet": ("a.parquet", b"PAR1", r"a\.parquet: not a readable parquet"),
    "no epub": ("a.epub", b"PK", r"a\.epub: not a readable epub"),
    "cut epub": ("a.epub", book("<p>text</p>")[:-100], r"a\.epub: not a readable epub"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_whole_is_refused_with_its_place(case):
    name, data, message = BAD[case]
    with pytest.raises(InputError, match=message):
        parse_document(name, data)


def test_names_are_relative_to_the_common_folder():
    assert document_names(["data/a/x.txt", "data/b/x.txt"]) == {"data/a/x.txt": "a/x.txt", "data/b/x.txt": "b/x.txt"}
    assert document_names(["data/alpha/x.txt", "data/alps/x.txt"])["data/alps/x.txt"] == "alps/x.txt"
    assert document_names(["/far/away/x.txt"]) == {"/far/away/x.txt": "x.txt"}
    assert document_names(["s3://bucket/a.txt", "s3://bucket/b/a.txt"])["s3://bucket/b/a.txt"] == "b/a.txt"


def test_one_file_given_twice_is_refused():
    with pytest.raises(InputError, match=r"x\.txt: two documents of this name"):
        document_names(["data/x.txt", "data/../data/x.txt"])


def test_files_are_read_in_the_order_given(tmp_path):
    (tmp_path / "b.txt").write_text("one")
    (tmp_path / "a.jsonl").write_text('{"text": "two"}\n{"text": "three"}')
    paths = [str(tmp_path / "b.txt"), str(tmp_path / "a.jsonl")]
    assert list(read_documents(paths)) == [("b.txt", "one"), ("a.jsonl#1", "two"), ("a.jsonl#2", "three")]
