"""A shell command as a function: python shell.py ENDPOINT_ID ['{"option": "value"}']"""

import json
import sys

from globus_compute_sdk import Executor, ShellFunction


endpoint_id, config = sys.argv[1], json.loads("".join(sys.argv[2:]) or "{}")

greet = ShellFunction("echo hello {name} from $USER; exit 3")
with Executor(endpoint_id=endpoint_id, user_endpoint_config=config) as gce:
    result = gce.submit(greet, name="world").result(timeout=60)
    print(f"{result.stdout.strip()} (exit code {result.returncode})")
