from typing import NamedTuple

import pytest

from unlearn_ray.config import load_config
from unlearn_ray.errors import InputError
from unlearn_ray.jobs import Job, chosen_sets, job_arguments, urgency


class Owned(NamedTuple):
    forget_set: str


@pytest.fixture
def config(tmp_path):
    (tmp_path / "run.yaml").write_text("""
root: runs
baseline: some/model
forget_sets:
  - {name: late, documents: x, deadline: 2027-01-31}
  - {name: plain, documents: x}
  - {name: soon, documents: x, deadline: 2026-12-01}
  - {name: urgent, documents: x, priority: 5}
resources: {endpoint: {requests_per_minute: 60, requests_at_once: 7}}
""")
    return load_config(tmp_path / "run.yaml")


def order(config, job: Job) -> list[str]:
    names = ["shared", *chosen_sets(config, None)]
    return sorted(names, key=lambda name: urgency(config, job)(Owned(name)))


def test_priority_comes_before_deadline_and_deadline_before_place(config):
    assert order(config, Job()) == ["shared", "urgent", "soon", "late", "plain"]


def test_each_job_begins_with_its_own_sets(config):
    assert order(config, Job(1, 2)) == ["shared", "soon", "late", "urgent", "plain"]
    assert order(config, Job(2, 2)) == ["shared", "urgent", "plain", "soon", "late"]


def test_jobs_divide_what_they_share(config):
    assert job_arguments(config, 2) == [["--job", "1/2"], ["--job", "2/2"]]
    assert len(job_arguments(config, 9)) == 4  # no more than sets
    jobs = [Job.parse(text) for _, text in job_arguments(config, 4)]
    assert sum(job.share for job in jobs) == 1
    endpoints = [job.share_of(config).resources.endpoint for job in jobs]
    assert sum(one.requests_per_minute for one in endpoints) == 60 and endpoints[0].requests_at_once == 2


@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_job_is_refused(text):
    with pytest.raises(InputError, match="expected I/N"):
        Job.parse(text)


def test_a_set_that_the_run_does_not_have_is_refused(config):
    assert chosen_sets(config, ["urgent", "late"]) == ["late", "urgent"]
    with pytest.raises(InputError, match="no forget set lat"):
        chosen_sets(config, ["lat"])
