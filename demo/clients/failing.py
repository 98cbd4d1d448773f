"""A function that raises: python failing.py ENDPOINT_ID ['{"option": "value"}']"""

import json
import sys

from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed


def divide(a, b):
    return a / b


endpoint_id, config = sys.argv[1], json.loads("".join(sys.argv[2:]) or "{}")

with Executor(endpoint_id=endpoint_id, user_endpoint_config=config) as gce:
    future = gce.submit(divide, 1, 0)
    try:
        print(f"no error, but {future.result(timeout=60)}")
    except TaskExecutionFailed as e:
        print(f"the task failed: {str(e).strip().splitlines()[-1].strip()}")
