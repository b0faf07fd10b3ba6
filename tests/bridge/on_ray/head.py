"""A Ray cluster of one node: ``python head.py FOLDER``, until its input ends.

Says its address in the first line.  It is on the loopback interface alone, if Ray
lets it, and tells nobody of its use.
"""

from __future__ import annotations

import sys

import ray

MEMORY_BYTES = 80 * 1024 * 1024

context = ray.init(
    num_cpus=1,
    num_gpus=0,
    include_dashboard=False,
    object_store_memory=MEMORY_BYTES,
    _temp_dir=sys.argv[1],
    logging_level="ERROR",
)
print("ADDRESS", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
