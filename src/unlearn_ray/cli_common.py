"""What the commands have in common: how errors end them, and the arguments of a run."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from unlearn_ray import terminal
from unlearn_ray.errors import InputError

if TYPE_CHECKING:
    from unlearn_ray.config import RunConfig

STEPS = ("blocks", "reinforced", "anchors", "labels", "unlearned", "evaluation")


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


def load(config: str, overrides: Sequence[str]) -> "RunConfig":
    from unlearn_ray.config import load_config

    return load_config(config, overrides)


def runs_until(command: Callable) -> Callable:
    """How far a run goes: --until STEP, and --audit."""
    audit = click.option("--audit", is_flag=True, help="Attack the chosen models too, and report what came back.")
    until = click.option(
        "--until", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step to run."
    )
    return audit(until(command))
