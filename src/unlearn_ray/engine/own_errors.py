"""The errors of tasks and workers, out of the layers that Ray wraps around them."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayTaskError

from unlearn_ray.errors import InputError, StepFailed


@contextmanager
def own_errors() -> Iterator[None]:
    """Raises the InputError or StepFailed of a worker as itself, out of the layers that Ray wraps around it."""
    try:
        yield
    except Exception as error:
        raise _own_error(error) or error from error


def _own_error(error: BaseException | None) -> BaseException | None:
    # Ray's own error for a task inherits from what the task raised, but its text is the worker's traceback.
    if error is None or (isinstance(error, InputError | StepFailed) and not isinstance(error, RayTaskError)):
        return error
    inner = [getattr(error, "cause", None), error.__cause__, *getattr(error, "worker_failures", {}).values()]
    return next((found for one in inner if one is not error and (found := _own_error(one))), None)
