"""The first thing anybody tries: python sum.py ENDPOINT_ID ['{"option": "value"}']"""

import json
import sys

from globus_compute_sdk import Executor


def add(a, b):
    return a + b


endpoint_id, config = sys.argv[1], json.loads("".join(sys.argv[2:]) or "{}")

with Executor(endpoint_id=endpoint_id, user_endpoint_config=config) as gce:
    future = gce.submit(add, 5, 10)
    print(f"5 + 10 = {future.result(timeout=60)}")
