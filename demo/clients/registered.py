"""A registered function, submitted four times and looked up: python registered.py ENDPOINT_ID ['{"option": "value"}']"""

import json
import sys

from globus_compute_sdk import Client, Executor


def square(x):
    return x * x


endpoint_id, config = sys.argv[1], json.loads("".join(sys.argv[2:]) or "{}")

client = Client()
function_id = client.register_function(square)
with Executor(endpoint_id=endpoint_id, client=client, user_endpoint_config=config) as gce:
    futures = [gce.submit_to_registered_function(function_id, (x,)) for x in (1, 2, 3, 4)]
    squares = [future.result(timeout=60) for future in futures]
    looked_up = [client.get_task(future.task_id) for future in futures]
states = {task["status"] for task in looked_up}
assert [task["result"] for task in looked_up] == squares
print(f"squares {squares}; get_task says {', '.join(states)}")
