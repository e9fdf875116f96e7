import socket

import pytest
import ray

from unlearn_ray.config import Resources
from unlearn_ray.engine.session import ensure_ray
from unlearn_ray.errors import InputError


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("address", [f"127.0.0.1:{closed_port()}", f"ray://127.0.0.1:{closed_port()}", "nonsense"])
def test_a_cluster_that_cannot_be_reached_is_an_error_at_once(address):
    refused = pytest.raises(InputError, match=r"resources\.address: cannot join the Ray cluster")
    with refused, ensure_ray(Resources(address=address)):
        pass
    assert not ray.is_initialized()
