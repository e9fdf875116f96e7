import json
import multiprocessing
import uuid
from pathlib import Path

from unlearn_ray.engine.events import Events, read_events


def write_many(root: str, driver: str) -> None:
    events = Events(root, driver)
    for number in range(200):
        events.write("ran", number=number, text="é" * 500)
    events.close()


def test_lines_of_several_drivers_never_mix(tmp_path):
    context = multiprocessing.get_context("spawn")
    drivers = [context.Process(target=write_many, args=(str(tmp_path), name)) for name in "abc"]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert rows and sorted(read_events(str(tmp_path)), key=repr) == sorted(rows, key=repr)
    for name in "abc":
        assert [row["number"] for row in rows if row["driver"] == name] == list(range(200))


def test_an_object_store_gets_parts_that_read_as_one():
    root = f"fsspec+memory://{uuid.uuid4().hex}/runs"
    for driver in "ab":
        write_many(root, driver)
    assert len(read_events(root)) == 400


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    write_many(str(tmp_path), "a")
    with open(Path(tmp_path, "events.jsonl"), "a") as file:
        file.write('{"time": "2026-')
    assert len(read_events(str(tmp_path))) == 200
