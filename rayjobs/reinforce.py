"""The reinforced models alone, as a Ray job.

ray job submit --entrypoint-num-cpus 1 --working-dir . -- python rayjobs/reinforce.py CONFIG [a.b=value ...]
"""

import sys

from unlearn_ray.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:], "--until", "reinforced"])
