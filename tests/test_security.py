"""What comes from outside is data: it runs nowhere, it writes nowhere, and it does not fill the memory."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from ebooklib import epub
from peft import LoraConfig, get_peft_model

from unlearn_ray.cli import main
from unlearn_ray.documents import parse_document
from unlearn_ray.errors import InputError
from unlearn_ray.models import load_model
from unlearn_ray.terminal import one_line, printable


def run(*overrides: str) -> Result:
    return CliRunner().invoke(main, ["run", "run.yaml", *overrides])


def refused(result: Result, message: str) -> bool:
    return result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def with_entries(entries: dict[str, bytes]) -> bytes:
    """An epub of one chapter, with these entries added to its archive, or in place of its own."""
    book = epub.EpubBook()
    book.set_title("The title")
    chapter = epub.EpubHtml(title="c", file_name="c.xhtml", content="<p>The chapter.</p>")
    for item in (chapter, epub.EpubNcx(), epub.EpubNav()):
        book.add_item(item)
    book.toc, book.spine = [chapter], ["nav", chapter]
    made, changed = io.BytesIO(), io.BytesIO()
    epub.write_epub(made, book)
    with zipfile.ZipFile(made) as before, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            if name not in entries:
                after.writestr(name, before.read(name))
        for name, content in entries.items():
            after.writestr(name, content)
    return changed.getvalue()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_checkpoint_is_refused(folder, tiny_model_folder, name):
    shutil.copytree(tiny_model_folder, "pickled")
    Path("pickled/model.safetensors").unlink()
    torch.save({}, f"pickled/{name}")
    assert refused(run("baseline=pickled"), "pickled: its weights are pickles")


def test_a_pickle_adapter_is_refused(tmp_path, tiny_model_folder):
    adapted = get_peft_model(load_model(tiny_model_folder), LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.peft_config["default"].base_model_name_or_path = tiny_model_folder
    adapted.save_pretrained(str(tmp_path))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="its weights are pickles"):
        load_model(str(tmp_path))


def test_code_beside_a_model_does_not_run(folder):
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}')
    Path("model/tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", null]}}')
    Path("model/own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    assert run("baseline=model").exit_code == 2
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "..", ".hidden", "a\n", "a\\b", "shared", ""])
def test_a_set_name_cannot_leave_the_root(folder, name):
    sets = json.dumps([{"name": name, "documents": "story.txt"}])
    assert run(f"forget_sets={sets}").exit_code == 2
    assert not Path("runs").exists()


def test_entries_of_an_archive_are_read_and_never_written(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    link = zipfile.ZipInfo("EPUB/link")
    link.external_attr = 0o120777 << 16
    data = with_entries({"../escaped.xhtml": b"<p>x</p>", str(tmp_path / "absolute"): b"x"})
    with zipfile.ZipFile(archive := io.BytesIO(data), "a") as book:
        book.writestr(link, "/etc/passwd")
    assert parse_document("a.epub", archive.getvalue()) == [("a.epub", "The chapter.")]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_entity_of_an_epub_opens_no_file(tmp_path):
    (tmp_path / "secret").write_text("planted")
    text = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]><html><body><p>a &e; b</p></body></html>'
    [(_, text)] = parse_document("a.epub", with_entries({"EPUB/c.xhtml": text.encode()}))
    assert "planted" not in text


def same_text(rows: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(["word " * 20_000] * rows)}), sink, compression="zstd")
    return sink.getvalue()


BOMBS = {
    "a chapter of 1 GB": lambda: ("a.epub", with_entries({"EPUB/c.xhtml": b"<p>a " * 200_000_000})),
    "a picture of 1 GB": lambda: ("a.epub", with_entries({"EPUB/c.png": bytes(1_000_000_000)})),
    "a text in 10000 rows": lambda: ("a.parquet", same_text(10_000)),
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_what_unpacks_to_a_gigabyte_is_refused_and_not_unpacked(bomb, tmp_path):
    name, data = BOMBS[bomb]()
    assert len(data) < 5_000_000
    (tmp_path / name).write_bytes(data)
    message, peak_mb = read_alone(tmp_path / name)
    assert message.startswith(f"{name}") and "MB, the most that a" in message and "split it" in message
    assert peak_mb < 800, peak_mb


@pytest.mark.parametrize("name", ["line.txt", "line.jsonl"])
def test_a_line_of_a_gigabyte_is_refused_and_not_read_whole(name, tmp_path):
    with (tmp_path / name).open("wb") as file:
        file.write(b'{"text": "')
        file.truncate(1_000_000_000)
    message, peak_mb = read_alone(tmp_path / name)
    assert message == f"{name}: more than 256 MB, the most that a file may have; split it"
    assert peak_mb < 800, peak_mb


def read_alone(path: Path) -> tuple[str, int]:
    """What a process says that does nothing but read this document, and its peak memory in MB."""
    script = (
        "import re, sys\n"
        "from unlearn_ray.documents import read_documents\n"
        "from unlearn_ray.engine import storage\n"
        "from unlearn_ray.errors import InputError\n"
        "try: print(len(list(read_documents([sys.argv[1]], storage.read_bytes))))\n"
        "except InputError as error: print(error)\n"
        "print(int(re.search('VmHWM: *([0-9]+)', open('/proc/self/status').read().replace('\\t', ' '))[1]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
    message, peak = done.stdout.splitlines()
    return message, int(peak)


@pytest.mark.timeout(60)  # a parsed tree, and an expression that backtracks, took many minutes
def test_a_chapter_of_very_many_paragraphs_or_spaces_takes_no_longer_than_its_length():
    html = b"<p>x</p>" * 200_000 + b"<pre>" + b" " * 1_000_000 + b"y</pre>"
    [(_, text)] = parse_document("a.epub", with_entries({"EPUB/c.xhtml": html}))
    assert text.count("x") == 200_000 and text.endswith("y")


@pytest.mark.parametrize("html", [b"<div>" * 200_000 + b"x", b"<p>a&#xD800;b&#0;c</p>", b"<script>x</script><p>y</p>"])
def test_odd_html_is_text_or_refused(html):
    [(_, text)] = parse_document("a.epub", with_entries({"EPUB/c.xhtml": html}))
    assert text in ("x", "a\ufffdb\ufffdc", "y")


def test_json_that_is_nested_without_end_is_refused():
    with pytest.raises(InputError, match=r"a\.jsonl line 1: not JSON"):
        parse_document("a.jsonl", b'{"text": "x", "y": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")


def test_control_characters_of_a_text_do_not_reach_the_terminal():
    assert printable("a\x1b[31mb\u202ec\n\td") == "a\ufffd[31mb\ufffdc\n\td"
    assert "\x1b" not in one_line(InputError("name\x1b]0;title\x07.txt: empty"))


def test_a_hostile_document_is_named_and_the_others_run_without_it(folder):
    Path("bad.txt").write_bytes(b"One\0two")
    assert refused(run('forget_sets=[{name: story, documents: ["story.txt", "bad.txt"]}]'), "bad.txt: line 1")
    assert "Ray was started" in run().stderr
