"""The two errors that a user sees as one line. Everything else is a defect and keeps its traceback."""


class InputError(Exception):
    """Bad input: the message says what was given, what was expected and what to do. Exit code 2."""


class StepFailed(Exception):
    """A step of the run could not be finished. Exit code 1."""
