"""What the commands have in common: how they are parsed, fail, and show where a run stands."""

import json
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from unlearn_ray import terminal
from unlearn_ray.errors import InputError

if TYPE_CHECKING:
    from unlearn_ray.config import RunConfig
    from unlearn_ray.engine.steps import Outcome

STEPS = ("blocks", "reinforced", "anchors", "labels", "unlearned", "evaluation")
SHOWN_SETS = 20  # so many fit into a table
SHOWN_LINES = 20


class Commands(click.Group):
    """The one place where exceptions become a line and an exit code: 2 for bad input, 1 for all else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on from here", err=True)
            ctx.exit(130)
        except Exception as error:
            if ctx.meta.get("debug"):
                raise
            click.echo(f"error: {terminal.one_line(error)}", err=True)
            ctx.exit(2 if isinstance(error, InputError) else 1)


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta["debug"] = ctx.meta.get("debug") or value


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show the tracebacks of errors."
)


def takes_run(command: Callable) -> Callable:
    """The arguments CONFIG [KEY=VALUE ...] of a command about a run."""
    overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
    return click.argument("config")(overrides(debug_option(command)))


def runs_until(command: Callable) -> Callable:
    """How far a run goes: --until STEP, and --audit."""
    audit = click.option("--audit", is_flag=True, help="Attack the chosen models too, and report what came back.")
    until = click.option(
        "--until", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step to run."
    )
    return audit(until(command))


sets_option = click.option("--sets", metavar="NAME,...", help="Only these forget sets; what they need is included.")


def load(config: str, overrides: Sequence[str]) -> "RunConfig":
    from unlearn_ray.config import load_config

    return load_config(config, overrides)


def names(sets: str | None) -> list[str] | None:
    return sets.split(",") if sets else None


def is_short(settings: "RunConfig") -> bool:
    return len(settings.forget_sets) <= SHOWN_SETS


def show_change(outcome: "Outcome") -> None:
    if outcome.state not in ("done", "skipped"):  # of many sets these are thousands of lines
        show_progress(outcome)


def echo_some(lines: Iterable[str]) -> None:
    told = list(lines)
    for line in told[:SHOWN_LINES]:
        click.echo(line)
    if len(told) > SHOWN_LINES:
        click.echo(f"and {len(told) - SHOWN_LINES} more")


def echo_standing(
    settings: "RunConfig", outcomes: Sequence["Outcome"], *, as_json: bool = False, wanted: Sequence[str] | None = None
) -> bool:
    """A table, or an overview where there are too many sets for one; returns whether something is unfinished."""
    from unlearn_ray.engine.overview import as_json as json_of
    from unlearn_ray.engine.overview import overview

    sets = {one.name: one.deadline for one in settings.forget_sets if wanted is None or one.name in wanted}
    deadlines = {name: deadline for name, deadline in sets.items() if deadline}
    found = overview(outcomes, list(sets), deadlines, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(json_of(found), ensure_ascii=False))
    elif len(sets) <= SHOWN_SETS:
        click.echo(terminal.table(outcomes))
    else:
        click.echo(terminal.overview(found))
    return bool(found.sets.keys() & {"running", "to do"})


def show_progress(outcome: "Outcome") -> None:
    click.echo(terminal.progress(outcome))


def echo_reports(pages: dict[str, str]) -> None:
    echo_some(f"report of {forget_set}: {page}" for forget_set, page in pages.items())


def echo_errors(outcomes: Sequence["Outcome"]) -> None:
    debug = click.get_current_context().meta.get("debug")
    failed = [outcome for outcome in outcomes if outcome.error]
    for number, outcome in enumerate(failed):
        if number == SHOWN_LINES:
            click.echo(f"and {len(failed) - number} more; `unlearn-ray status --json` has all", err=True)
            break
        if outcome.error:
            step = f"{outcome.step.forget_set} {outcome.step.stage}-{outcome.step.digest}"
            click.echo(f"error: {step}: {terminal.one_line(outcome.error)}", err=True)
            if debug:
                traceback.print_exception(outcome.error)


def fail_if_unfinished(outcomes: Sequence["Outcome"]) -> None:
    echo_errors(outcomes)
    if any(outcome.state in ("failed", "skipped") for outcome in outcomes):
        click.get_current_context().exit(1)
