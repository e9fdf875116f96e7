import time
import urllib.request

import ray

from unlearn_ray.engine.metrics import Metrics
from unlearn_ray.engine.steps import Outcome, Step


def test_the_steps_of_a_run_are_among_the_metrics_of_ray(local_ray):
    step = Step("counted", 1, "alice", {}, lambda run: {})
    with Metrics() as metrics:
        metrics.hear(Outcome(step, "running", ""))
        metrics.hear(Outcome(step, "ran", "", 12.0))
        metrics.hear(Outcome(Step("begun", 1, "alice", {}, lambda run: {}), "running", ""))
        [node] = ray.nodes()
        deadline = time.monotonic() + 60
        while True:
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            told = urllib.request.urlopen(url, timeout=10).read().decode()
            lines = [line for line in told.splitlines() if "unlearn_ray_step" in line and not line.startswith("#")]
            if any("steps_running" in line and 'stage="begun"' in line for line in lines):
                break
            assert time.monotonic() < deadline, lines
            time.sleep(1)
    value = lambda *parts: {line.rsplit(" ", 1)[1] for line in lines if all(part in line for part in parts)}
    assert value("steps_running", 'stage="begun"') == {"1.0"} and value("steps_running", 'stage="counted"') == {"0.0"}
    assert value("unlearn_ray_steps", 'state="ran"', 'stage="counted"') == {"1.0"}
    assert value("step_seconds_count", 'stage="counted"') == {"1.0"}
