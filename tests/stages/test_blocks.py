import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unlearn_ray.config import Resources
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.stages.blocks import CutDocuments, cut_documents, read_blocks
from unlearn_ray.stages.joint import unite_labels


@pytest.fixture
def root(tmp_path, tiny_model_folder) -> Path:
    baseline = tmp_path / "shared" / "baseline-0123456789"
    baseline.mkdir(parents=True)
    (baseline / "model.json").write_text(json.dumps({"path": tiny_model_folder}))
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"The {name} road was long and the morning was bright. " * 20)
    return tmp_path


def cut(root: Path, name: str, documents: str, shared: str = "") -> dict:
    run = StepRun(f"{root}/{name}/blocks-0123456789", {"baseline": f"{root}/shared/baseline-0123456789"})
    paths = lambda letters: [f"{root}/{letter}.txt" for letter in letters]
    return cut_documents(
        run,
        documents=paths(documents),
        shared=paths(shared),
        block_tokens=16,
        resources=Resources(),
        trust_remote_code=False,
    )


def test_a_document_of_several_sets_is_tokenised_once_and_its_blocks_are_the_same(root, local_ray):
    alone = cut(root, "alone", "bc")
    found = {}
    work = [threading.Thread(target=lambda name=name, has=has: found.update({name: cut(root, name, has, "b")}))
            for name, has in (("first", "ab"), ("second", "bc"))]  # fmt: skip
    for one in work:
        one.start()
    for one in work:
        one.join()
    assert sum(one["found_tokenised"] for one in found.values()) == 1
    assert len(list((root / "shared" / "tokenised").iterdir())) == 1
    assert found["second"]["rows"] == alone["rows"] and alone["found_tokenised"] == 0
    assert read_blocks(f"{root}/second/blocks-0123456789").equals(read_blocks(f"{root}/alone/blocks-0123456789"))
    (root / "b.txt").write_text("Another text. " * 40)
    assert cut(root, "third", "ab", "b")["found_tokenised"] == 0, "it is another document now"


def test_kept_blocks_are_taken_where_they_are(root):
    arguments = {"baseline": f"{root}/shared/baseline-0123456789", "out": f"{root}/out", "block_tokens": 16}
    actor = CutDocuments(**arguments, trust_remote_code=False)

    def kept(name: str) -> int:
        work = {"path": f"{root}/a.txt", "name": "a.txt", "part": "part-00000.parquet", "kept": f"{root}/{name}"}
        return actor(pa.table({"shard": [json.dumps(work)]})).to_pylist()[0]["found"]

    assert [kept("x.parquet"), kept("x.parquet"), kept("y.parquet")] == [False, True, False]


def test_united_labels_are_read_in_the_order_of_the_names_of_their_sets(root):
    for name in ("b", "a"):
        folder = root / name / "labels-0123456789"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"block_id": [ord(name)]}), folder / "part-00000.parquet")
    inputs = {f"labels of {name}": f"{root}/{name}/labels-0123456789" for name in ("b", "a")}
    united = f"{root}/joint/labels-0123456789"
    unite_labels(StepRun(united, inputs))
    assert read_blocks(united)["block_id"].to_pylist() == [ord("a"), ord("b")]
    assert json.loads(Path(united, "union.json").read_text()) == {
        "folders": ["a/labels-0123456789", "b/labels-0123456789"]
    }
