"""What is said on the socket on which a manager is asked how it is: `status.sock` in its run folder (SOCK_STREAM).

One line of JSON is asked, one is answered, then the connection ends:

    {"ask": "status"}   ->   {"pid": 42, "endpoint": ID, "status": {"connection": "connected", ...}, "line": "..."}
    anything else       ->   {"error": "..."}

The monitor has made the socket, and the worker answers on it, with what the monitor has told it (STATUS_IS).
"""

from __future__ import annotations

NAME = "status.sock"
QUESTION = {"ask": "status"}
TIME = 5.0
"""Seconds for a question and its answer, on both sides."""
MOST_QUESTION = 4096
MOST_ANSWER = 2**16
"""Bytes."""
