"""The socket on which a manager is asked how it is: `api.sock` in its run folder (SOCK_STREAM), HTTP/1.1.

The monitor has made the socket; the worker answers on it (`worker.api_server`), by what the monitor tells it: FACTS,
when somebody asks, and EVENT for each decision. What may be asked is in `worker/openapi.json`.
"""

from __future__ import annotations

NAME = "api.sock"
TIME = 5.0
"""Seconds for a request and its answer, on both sides."""
MOST_FACTS = 4 * 2**20
"""Bytes of what the monitor tells at a time; user endpoints that do not fit are counted."""
MOST_ANSWER = 3 * MOST_FACTS
"""Bytes of an answer: the facts, and what the worker adds."""
