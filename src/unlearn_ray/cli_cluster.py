"""The commands about a Ray cluster: submit and doctor."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from unlearn_ray.cli_common import load, runs_until, takes_run
from unlearn_ray.errors import InputError


@click.command()
@takes_run
@runs_until
@click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help="The cluster's dashboard: http://HOST:8265."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, metavar="N", help="Split the forget sets over N jobs.")
@click.option("--no-wait", is_flag=True, help="Only start it.")
def submit(
    config: str, overrides: tuple[str, ...], until: str, audit: bool, address: str | None, jobs: int, no_wait: bool
) -> None:
    """Run on a Ray cluster, as a job or several.

    The job gets a copy of this folder without what .gitignore names; its log is shown here, and its exit code is that
    of this command. The same command again goes on with what is unfinished.
    """
    if address is None:
        raise InputError("--address is missing: the URL of the cluster's dashboard, such as http://127.0.0.1:8265")
    command = ["run", config, *overrides, *(["--audit"] if audit else ["--until", until])]
    from unlearn_ray.jobs import job_arguments

    shares = job_arguments(load(config, overrides), jobs) if jobs > 1 else [[]]
    _submit([command + share for share in shares], config, overrides, address, wait=not no_wait)


@click.command()
@takes_run
@click.option("--address", metavar="URL", help="Examine the cluster with this dashboard, as a job that runs there.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long nodes may take to be there.",
)
def doctor(config: str, overrides: tuple[str, ...], address: str | None, wait: float) -> None:
    """Examine a cluster before a run.

    Room, versions on all nodes, storage, model, documents and endpoint; a line each, with what to do. Exits with 1
    where something is wrong.
    """
    if address is not None:
        _submit([["doctor", config, *overrides, "--wait", str(wait)]], config, overrides, address, wait=True)
    settings = load(config, overrides)
    from unlearn_ray.stages.doctor import examine_cluster

    failed = False
    for name, problem, found in examine_cluster(settings, wait):
        click.echo(f"{name:<11}{f'FAILED  {problem}' if problem else f'ok      {found}'}")
        failed = failed or problem is not None
    click.get_current_context().exit(int(failed))


def _submit(commands: Sequence[list[str]], config: str, overrides: Sequence[str], address: str, *, wait: bool) -> None:
    """A job for each of the commands. Ends the program with the first exit code of a job that is not 0."""
    settings = load(config, overrides)
    # Ray reads this while it is imported, and by itself sends no token to a cluster that it did not start.
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    from unlearn_ray.engine import jobs

    if not Path(config).resolve().is_relative_to(Path.cwd()):
        raise InputError(f"{config}: lies outside the current folder, which is what the job gets a copy of")
    client = jobs.connect(address)
    started = []
    for number, command in enumerate(commands, 1):
        run = jobs.run_name(settings, command, config) + (f"-{number}of{len(commands)}" if len(commands) > 1 else "")
        metadata = {"config": config, "run": run}
        started.append(jobs.submit(client, command, run=run, metadata=metadata, leave_out=settings.root))
        click.echo(f"job {started[-1]} at {address}")
    codes = [0]
    if wait:
        try:
            codes = [jobs.follow(client, job, lambda lines: click.echo(lines, nl=False)) for job in started]
        except KeyboardInterrupt:
            ends = "\n".join(f"to end it: ray job stop --address {address} {job}" for job in started)
            click.echo(f"\nthe job goes on; {ends}", err=True)
            codes = [130]
    click.get_current_context().exit(next(filter(None, codes), 0))
