import socket
import subprocess
import sys

import pytest

JOIN = """
import sys
from unlearn_ray.config import Resources
from unlearn_ray.engine.session import ensure_ray
from unlearn_ray.errors import InputError
for address in sys.argv[1:]:
    try:
        with ensure_ray(Resources(address=address)):
            print("joined", address)
    except InputError as error:
        print(error)
"""


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.timeout(60)
def test_a_cluster_that_cannot_be_reached_is_an_error_at_once():
    addresses = [f"127.0.0.1:{closed_port()}", f"ray://127.0.0.1:{closed_port()}", "nonsense"]
    # A process of its own: the tests' has a Ray, and takes that one.
    told = subprocess.run([sys.executable, "-c", JOIN, *addresses], capture_output=True, text=True, check=True).stdout
    for address, line in zip(addresses, told.splitlines(), strict=True):
        assert line.startswith(f"resources.address: cannot join the Ray cluster at {address}")
