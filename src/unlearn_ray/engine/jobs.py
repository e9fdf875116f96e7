"""A command of this program as a job of a Ray cluster: submitted, followed, and ended with the job's own exit code."""

import asyncio
import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from unlearn_ray.config import RunConfig
from unlearn_ray.errors import InputError

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # which Ray's client would believe more than what it is told
DRIVER_CPUS = 1  # so that the driver runs on a worker node: the head of a cluster in use has no CPUs
DRIVER_NODES = {"ray.io/market-type": "!spot"}  # losing the driver ends the attempt


def connect(address: str) -> JobSubmissionClient:
    """The jobs of the cluster whose dashboard is at `address`. Raises InputError where none answers, or not to us."""
    for name in ADDRESSES:
        os.environ.pop(name, None)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise InputError(
            f"--address {address}: the cluster asks for its token; put it into ~/.ray/auth_token or into a file that "
            "RAY_AUTH_TOKEN_PATH names"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--address {address}: no dashboard of a Ray cluster answers there ({error})") from error


def submit(
    client: JobSubmissionClient, command: Sequence[str], *, run: str, metadata: Mapping[str, str], leave_out: str
) -> str:
    """Start `python -m unlearn_ray COMMAND` as the next attempt of a run (see run_name); returns the submission id.

    The job gets a copy of the current folder, without what .gitignore names and the folder `leave_out`. Raises
    InputError while another attempt is at work: the new one would only wait for its steps.
    """
    attempts = _attempts(client.list_jobs(), run)
    if alive := [job.submission_id for job in attempts.values() if not job.status.is_terminal()]:
        raise InputError(f"job {alive[0]} of the same run is at work; wait for it, or end it with `ray job stop`")
    below = os.path.relpath(leave_out).rstrip("/") if "://" not in leave_out else ".."
    return client.submit_job(
        entrypoint=shlex.join(["python", "-m", "unlearn_ray", *command]),
        submission_id=f"{run}-{max(attempts, default=0) + 1}",
        runtime_env={"working_dir": ".", "excludes": [] if below.startswith("..") or below == "." else [f"/{below}/"]},
        metadata=dict(metadata),
        entrypoint_num_cpus=DRIVER_CPUS,
        entrypoint_label_selector=DRIVER_NODES,
    )


def follow(client: JobSubmissionClient, submission_id: str, on_log: Callable[[str], None]) -> int:
    """Hand on what the job writes until it ends; returns its exit code, 1 where it has none."""

    async def tail() -> None:
        async for lines in client.tail_job_logs(submission_id):
            on_log(lines)

    try:
        asyncio.run(tail())
    except (RuntimeError, OSError) as error:
        on_log(f"the log of {submission_id} cannot be followed any more ({error}); waiting for its end\n")
    while not (job := client.get_job_info(submission_id)).status.is_terminal():
        time.sleep(2)
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if not job.driver_exit_code or job.driver_exit_code < 0:
        on_log(f"{job.message}\n")  # it never ran, or was killed: Ray says why
        return 1
    return job.driver_exit_code


def run_name(config: RunConfig, command: Sequence[str], path: str) -> str:
    """The name of a run among the jobs of a cluster: of the same name are those of one command that compute the same
    into one root, however far they go."""
    what = [command[0], config.model_dump(mode="json", exclude={"resources", "review"})]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
    return f"unlearn-{Path(path).stem}-{digest}"


def _attempts(jobs: Sequence[JobDetails], run: str) -> dict[int, JobDetails]:
    named = {job.submission_id: job for job in jobs if job.submission_id and job.submission_id.startswith(f"{run}-")}
    numbers = {name.removeprefix(f"{run}-"): job for name, job in named.items()}
    return {int(number): job for number, job in numbers.items() if number.isdigit()}
