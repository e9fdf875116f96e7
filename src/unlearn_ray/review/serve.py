"""A Label Studio of one's own, on loopback, for those who have none running: its own program in its own environment."""

import base64
import hashlib
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from unlearn_ray.errors import InputError, StepFailed

PROGRAM = "UNLEARN_LABEL_STUDIO"
MADE_HERE = ".label-studio/bin/label-studio"  # by `make label-studio`
USER = "default_user@localhost"
DATABASE = "label_studio.sqlite3"
ITERATIONS = 600_000
STARTING_S = 300  # the first start makes the database


@dataclass(frozen=True)
class Running:
    """A server that runs. password and token were made for this start; no file holds either."""

    url: str
    user: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    process: subprocess.Popen


def program() -> str:
    """The label-studio program. Raises InputError where there is none."""
    found = os.environ.get(PROGRAM) or (MADE_HERE if Path(MADE_HERE).exists() else shutil.which("label-studio"))
    if not found or not Path(found).exists():
        raise InputError(
            f"no label-studio program{f' at {found}' if found else ''}: `make label-studio` installs it into "
            f".label-studio; one elsewhere is named by {PROGRAM}. It needs an environment of its own"
        )
    return str(Path(found).absolute())


@contextmanager
def label_studio(data: str, port: int) -> Iterator[Running]:
    """Runs Label Studio on 127.0.0.1 with its database in the folder `data` until the context ends.

    It asks for a login whose password is new with every start. Nobody can sign up, and it sends nothing anywhere.
    Raises InputError for a port that is taken, StepFailed where it does not start.
    """
    path, url = program(), f"http://127.0.0.1:{port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"port {port} is taken: give another one as --port") from error
    folder = Path(data).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"--data {data}: {error}") from error
    password, token = secrets.token_urlsafe(12), secrets.token_hex(20)
    own = {
        **({} if _renew_login(folder / DATABASE, password, token) else {"LABEL_STUDIO_USERNAME": USER}),
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "HOME": str(folder),
    }
    others = ("PYTHONPATH", "LABEL_STUDIO_API_KEY", "LABEL_STUDIO_USERNAME")
    environment = {name: value for name, value in os.environ.items() if name not in others} | own
    log = folder / "label-studio.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                path,
                "start",
                "--no-browser",
                "--internal-host",
                "127.0.0.1",
                "--port",
                str(port),
                "--data-dir",
                str(folder),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: the server ends when we say so
        )
    try:
        _wait(url, process, log)
        yield Running(url, USER, password, token, process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _renew_login(database: Path, password: str, token: str) -> bool:
    """Gives the user of an earlier start the new password and token; whether there is such a user.

    Label Studio itself takes both from the environment only for a user that it has to make, and changes a password
    only by a command that other users of the machine can read.
    """
    if not database.exists():
        return False
    salt = secrets.token_hex(11)
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), ITERATIONS)
    hashed = f"pbkdf2_sha256${ITERATIONS}${salt}${base64.b64encode(digest).decode()}"  # Django's form
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            found = connection.execute("UPDATE htx_user SET password = ? WHERE email = ?", (hashed, USER)).rowcount
            of_user = "WHERE user_id = (SELECT id FROM htx_user WHERE email = ?)"
            connection.execute(f"UPDATE authtoken_token SET key = ? {of_user}", (token, USER))
            return found > 0
    except sqlite3.OperationalError:
        return False  # a first start that did not come so far


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + STARTING_S
    while time.monotonic() < until:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise StepFailed(f"Label Studio ended as it started ({' '.join(last)}); {log} has more")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise StepFailed(f"Label Studio did not answer within {STARTING_S} s; {log} has more")
