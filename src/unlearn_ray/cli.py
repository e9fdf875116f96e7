"""The `unlearn-ray` command: parses, then calls the library, which is imported only then: --help answers at once."""

import shutil
import signal
import time
from collections.abc import Sequence

import click

from unlearn_ray import terminal
from unlearn_ray.cli_cluster import doctor, submit
from unlearn_ray.cli_common import (
    Commands,
    debug_option,
    echo_errors,
    echo_reports,
    echo_some,
    echo_standing,
    fail_if_unfinished,
    is_short,
    load,
    names,
    runs_until,
    sets_option,
    show_change,
    show_progress,
    takes_run,
)
from unlearn_ray.errors import InputError

WATCH_S = 5


@click.group("unlearn-ray", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unlearn-ray")
@debug_option
def main() -> None:
    """Make a language model forget a body of text, and prove that it has, on Ray.

    CONFIG is a run as YAML; KEY=VALUE overrides one of its keys, such as label.alpha=[2.5,5].
    """


@main.command()
@takes_run
@runs_until
@sets_option
@click.option("--job", metavar="I/N", help="One of N runs that share sets and cluster: begins with every N-th set.")
def run(config: str, overrides: tuple[str, ...], until: str, audit: bool, sets: str | None, job: str | None) -> None:
    """Run every step for every forget set.

    Goes on with what is unfinished, and writes the reports. Steps of several sets run side by side, as far as the
    cluster and resources.parallel_sets let them; a set that fails stops no other. Several runs may work on one root:
    none does a step that another has.
    """
    settings = load(config, overrides)
    from unlearn_ray import pipeline
    from unlearn_ray.jobs import ONLY, Job

    wanted = names(sets)
    echo_some(f"again: {line}" for line in pipeline.redone(settings, wanted))
    outcomes = pipeline.run(
        settings,
        until="audit" if audit else until,
        sets=wanted,
        job=Job.parse(job) if job else ONLY,
        on_event=show_progress if is_short(settings) else show_change,
    )
    echo_standing(settings, outcomes)
    pages = pipeline.report(settings, only_new=True)
    if len(pages) == 1 and until == "evaluation":
        [data] = pipeline.read_run(settings).values()
        click.echo(f"\n{terminal.comparison(data)}\n")
    echo_reports(pages)
    fail_if_unfinished(outcomes)


@main.command()
@takes_run
@click.option("--memory", type=click.FloatRange(min=0, min_open=True), metavar="GB", help="What a device has.")
@click.option("--probe/--no-probe", default=None, help="Estimate times by measuring on this machine.")
def plan(config: str, overrides: tuple[str, ...], memory: float | None, probe: bool | None) -> None:
    """Show what a run will need, before it runs.

    Memory of a device, steps and, where the run computes on this machine, time. Exits with 2 where the memory is too
    small, and says which settings fit.
    """
    settings = load(config, overrides)
    from unlearn_ray.stages.plan import make_plan

    planned = make_plan(settings, memory_gb=memory, probe=probe)
    click.echo(terminal.plan(planned))
    if planned.refusal:
        raise InputError(planned.refusal)


@main.command()
@takes_run
@sets_option
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until all is done or failed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, a line, for programs.")
def status(config: str, overrides: tuple[str, ...], sets: str | None, watch: bool, as_json: bool) -> None:
    """Show what is done, running, failed and to do.

    A table where there are few sets, or --sets names them; else how many steps stand where, what fails, what is slow,
    and the time left at the rate of what is done. What was done before and has to be done again is told with its
    reason.
    """
    settings = load(config, overrides)
    from unlearn_ray import pipeline

    wanted = names(sets)
    look, again = pipeline.watch(settings, wanted), pipeline.redone(settings, wanted)
    while True:
        outcomes = look()
        if watch and not as_json:
            click.clear()
        unfinished = echo_standing(settings, outcomes, as_json=as_json, wanted=wanted)
        if not as_json:
            echo_some(f"again: {line}" for line in again)
            echo_errors(outcomes)
        if not watch or not unfinished:
            return
        time.sleep(WATCH_S)


@main.command()
@takes_run
@click.option("--delete", is_flag=True, help="Remove it; without this it is only listed.")
def clean(config: str, overrides: tuple[str, ...], delete: bool) -> None:
    """List what can be removed from the root, and remove it with --delete.

    That is: folders of steps that this configuration does not have (of sets, settings or documents of another time, of
    another configuration on this root, and of `evaluate`d models); checkpoints on the way of a training, once every
    evaluation that measures them is done, except the one that was chosen; what dead runs left. Whatever else is
    evaluated afterwards compares only what is left. Refused while a run is at work.
    """
    settings = load(config, overrides)
    from unlearn_ray import pipeline

    found = pipeline.clean(settings, delete=delete)
    click.echo(terminal.superfluous(found))
    if found and not delete:
        click.echo("nothing was removed; --delete does it")


@main.command()
@takes_run
def report(config: str, overrides: tuple[str, ...]) -> None:
    """Write the reports of all evaluated forget sets."""
    settings = load(config, overrides)
    from unlearn_ray import pipeline

    pages = pipeline.report(settings)
    if not pages:
        raise InputError(f"{config}: no forget set is evaluated yet; `unlearn-ray run {config}` does that")
    echo_reports(pages)


@main.command()
@click.argument("model")
@click.option("--config", required=True, help="The run whose forget sets and settings to measure with.")
@click.option("--forget-set", help="One of its forget sets; not needed where there is only one.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@debug_option
def evaluate(model: str, config: str, forget_set: str | None, overrides: tuple[str, ...]) -> None:
    """Measure and attack any checkpoint, also one made elsewhere.

    MODEL is a hub id, a folder or a .gguf file. Prints the path of its report.
    """
    settings = load(config, overrides)
    known = [one.name for one in settings.forget_sets]
    chosen = known[0] if forget_set is None and len(known) == 1 else forget_set
    if chosen not in known:
        raise InputError(f"--forget-set {chosen or 'is missing'}: expected one of {', '.join(known)}")
    from unlearn_ray import pipeline

    click.echo(f"report of {model}: {pipeline.evaluate_model(settings, model, chosen, on_event=show_progress)}")


@main.group()
def anchors() -> None:
    """Make and examine the anchor dictionary alone."""


@anchors.command()
@takes_run
@click.option("--dry-run", is_flag=True, help="Only show what asking the language model will cost at most.")
@click.option("--price", type=(float, float), metavar="IN OUT", help="Dollars for a million tokens, for --dry-run.")
def build(config: str, overrides: tuple[str, ...], dry_run: bool, price: tuple[float, float] | None) -> None:
    """Make the dictionary of every forget set and stop there."""
    settings = load(config, overrides)
    from unlearn_ray import pipeline

    if dry_run:
        if settings.anchors.source != "openai":
            raise InputError("--dry-run: this run asks no language model (anchors.source is not openai)")
        click.echo(terminal.estimates(pipeline.estimate_asking(settings), price))
        return
    outcomes = pipeline.run(settings, until="anchors", on_event=show_progress)
    made = [
        one for one in outcomes if one.step.stage in ("anchors", "reviewed_anchors") and one.state in ("done", "ran")
    ]
    for forget_set, folder in {one.step.forget_set: one.folder for one in made}.items():  # the last: as people want it
        click.echo(f"dictionary of {forget_set}: {folder}/dictionary.jsonl")
    fail_if_unfinished(outcomes)


documents_option = click.option(
    "--documents", required=True, multiple=True, help="The forget set: a path, URI or glob. May be given repeatedly."
)


@anchors.command()
@click.argument("dictionary")
@documents_option
@debug_option
@click.pass_context
def check(ctx: click.Context, dictionary: str, documents: tuple[str, ...]) -> None:
    """Examine a dictionary (JSONL) against its documents.

    Exits with 1 where it has errors.
    """
    from unlearn_ray.method.dictionary import read_entries
    from unlearn_ray.method.findings import check as find

    found = find(read_entries(_read(dictionary), dictionary), list(_texts(documents).values()))
    click.echo(terminal.findings(found, shutil.get_terminal_size().columns))
    ctx.exit(int(any(finding.level == "error" for finding in found)))


@anchors.command()
@click.argument("dictionary")
@documents_option
@click.option("--at", type=click.IntRange(min=1), default=1, help="Which occurrence of an anchor to show, from 1.")
@debug_option
def show(dictionary: str, documents: tuple[str, ...], at: int) -> None:
    """Show a passage beside its translation, anchors in brackets."""
    from unlearn_ray.method.dictionary import AnchorDictionary
    from unlearn_ray.method.translation import translate

    entries = AnchorDictionary.from_jsonl(_read(dictionary), dictionary)
    occurrences = [(name, text, span) for name, text in _texts(documents).items() for span in entries.spans(text)]
    if at > len(occurrences):
        raise InputError(f"--at {at}: the documents have {len(occurrences)} occurrences of these anchors")
    name, text, span = occurrences[at - 1]
    start, end = terminal.passage(text, span.start, span.end)
    translation = translate(text[start:end], entries, text[:start], text[end:])
    click.echo(f"{name}, characters {start} to {end}; occurrence {at} of {len(occurrences)}")
    click.echo(terminal.side_by_side(text[start:end], translation, shutil.get_terminal_size().columns))


@main.group()
def review() -> None:
    """Let people correct the dictionary, the labels and the judge."""


project_option = click.option(
    "--project", type=click.Choice(["anchors", "labels", "judge"]), help="One of the three; all without it."
)


@review.command("export")
@takes_run
@click.option("--forget-set", help="One of them; all without it.")
@project_option
@click.option("--to", "folder", metavar="FOLDER", help="Write files into this folder; review/ without it.")
@click.option(
    "--server", metavar="URL", help="Create the projects there, or add what is new. Needs unlearn-ray[review]."
)
def review_export(
    config: str,
    overrides: tuple[str, ...],
    forget_set: str | None,
    project: str | None,
    folder: str | None,
    server: str | None,
) -> None:
    """Ask people: three Label Studio projects, as files or on a server.

    The access token of a server is in LABEL_STUDIO_API_KEY.
    """
    settings = load(config, overrides)
    if folder and server:
        raise InputError("--to and --server: give the one or the other")
    known = [one.name for one in settings.forget_sets]
    if forget_set is not None and forget_set not in known:
        raise InputError(f"--forget-set {forget_set}: expected one of {', '.join(known)}")
    from unlearn_ray.review.server import Server
    from unlearn_ray.reviewing import PROJECTS, export_review

    exported = export_review(
        settings,
        forget_sets=[forget_set] if forget_set else known,
        projects=[project] if project else PROJECTS,
        folder=folder,
        server=Server(server) if server else None,
    )
    click.echo(terminal.exported(exported))


@review.command("import")
@click.argument("config")
@click.argument("files", nargs=-1)
@click.option("--server", metavar="URL", help="Read the answers there. Needs unlearn-ray[review].")
@click.option("--override", "overrides", multiple=True, metavar="KEY=VALUE", help="As for `run`; may be repeated.")
@debug_option
def review_import(config: str, files: tuple[str, ...], server: str | None, overrides: tuple[str, ...]) -> None:
    """Read what people answered, and decide what follows.

    FILES are Label Studio's JSON exports, or exported tasks with answers written into them. A file with anything wrong
    in it is refused whole. The next `run` applies what was decided.
    """
    settings = load(config, overrides)
    if bool(files) == bool(server):
        raise InputError("give FILES, or a server as --server")
    from unlearn_ray.review.server import Server
    from unlearn_ray.reviewing import fetch_answers, import_review

    sources = fetch_answers(settings, Server(server)) if server else [(file, _read(file), {}) for file in files]
    imported, cancelled = import_review(settings, sources)
    click.echo(terminal.imported(imported, cancelled))
    if any(one.changes for one in imported):
        click.echo(f"`unlearn-ray run {config}` applies it")


@review.command("serve")
@takes_run
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--data", default=".label-studio-data", show_default=True, help="Folder of its database.")
def review_serve(config: str, overrides: tuple[str, ...], port: int, data: str) -> None:
    """Start a Label Studio on this machine with the three projects.

    It listens on 127.0.0.1 alone, and the password is new with every start. `make label-studio` installs it.
    """
    settings = load(config, overrides)
    from unlearn_ray.review.serve import label_studio
    from unlearn_ray.review.server import TOKEN, Server
    from unlearn_ray.reviewing import export_review

    click.echo("starting Label Studio, which takes a minute")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends with us then too
    with label_studio(data, port) as running:
        server = Server(running.url, running.token)
        exported = export_review(settings, forget_sets=[one.name for one in settings.forget_sets], server=server)
        click.echo(terminal.exported(exported))
        click.echo(f"\nopen {running.url}\nlogin {running.user}\npassword {running.password}\n")
        click.echo("to read the answers, while it runs:")
        click.echo(f"    {TOKEN}={running.token} unlearn-ray review import {config} --server {running.url}")
        click.echo("Ctrl-C ends it; the answers stay in its database")
        try:
            running.process.wait()
        except KeyboardInterrupt:
            click.echo("stopped")


def _read(path: str) -> str:
    from unlearn_ray.engine import storage

    [file] = storage.expand([path])
    return storage.read_text(file)


def _texts(patterns: Sequence[str]) -> dict[str, str]:
    from unlearn_ray.documents import read_documents
    from unlearn_ray.engine import storage

    return dict(read_documents(storage.expand(patterns), storage.read_bytes))


main.add_command(submit)
main.add_command(doctor)

if __name__ == "__main__":
    main()
