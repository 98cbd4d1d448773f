"""A function that runs a program and returns its output: python program.py ENDPOINT_ID ['{"option": "value"}']"""

import json
import sys

from globus_compute_sdk import Executor


def who_am_i():
    import subprocess

    return subprocess.run(["id"], capture_output=True, text=True, check=True).stdout.strip()


endpoint_id, config = sys.argv[1], json.loads("".join(sys.argv[2:]) or "{}")

with Executor(endpoint_id=endpoint_id, user_endpoint_config=config) as gce:
    print(gce.submit(who_am_i).result(timeout=60))
