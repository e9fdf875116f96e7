"""The cluster examined before a run, as a Ray job.

ray job submit --entrypoint-num-cpus 1 --working-dir . -- python rayjobs/doctor.py CONFIG [a.b=value ...]
"""

import sys

from unlearn_ray.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
