"""A hundred tasks at once: python many.py ENDPOINT_ID ['{"option": "value"}']"""

import concurrent.futures
import json
import sys

from globus_compute_sdk import Executor


def jitter_double(task_num):
    import random

    return task_num, task_num * (1.5 + random.random())


endpoint_id, config = sys.argv[1], json.loads("".join(sys.argv[2:]) or "{}")

with Executor(endpoint_id=endpoint_id, user_endpoint_config=config) as gce:
    futures = [gce.submit(jitter_double, task_num) for task_num in range(100)]
    results = dict(future.result() for future in concurrent.futures.as_completed(futures, timeout=60))
good = sum(1.5 * task_num <= results[task_num] <= 2.5 * task_num for task_num in range(100))
print(f"{good} of 100 results are as expected")
