"""Run by the public package's Python: prints, as JSON, the figures that its engines send in heartbeats."""

import json
import sys
import uuid

from globus_compute_endpoint.engines import GlobusComputeEngine, ProcessPoolEngine, ThreadPoolEngine
from parsl.providers import LocalProvider

figures = {}
for engine in (
    ThreadPoolEngine(max_workers=2),
    ProcessPoolEngine(max_workers=2),
    GlobusComputeEngine(
        address="127.0.0.1", max_workers_per_node=1, provider=LocalProvider(init_blocks=0, min_blocks=0, max_blocks=1)
    ),
):
    engine.start(endpoint_id=uuid.uuid4(), run_dir=sys.argv[1])
    figures[type(engine).__name__] = engine.get_status_report().global_state
    engine.shutdown()
print(json.dumps(figures))
