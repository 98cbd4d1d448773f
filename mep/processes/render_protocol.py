"""What the monitor and the render server say to each other, and the limits that both must know.

The render server's descriptor 0 is a socket that keeps messages apart (SOCK_SEQPACKET):

  to the server    JOB: an id; with it, as a descriptor, one end of a socket pair for that request
  from the server  ENDED: the id; the exit code of the job's child, negative for a signal; whether it was killed for
                   taking WALL seconds. Id 0, once, says that the server is ready.

A request is all that comes on its own socket. What its child writes there counts only if the exit code is 0.

Request:  a JSON object {"template", "templates", "schema", "options", "runtime", "identity", "config", "environment"};
          options and runtime are the user's, as JSON texts
Answer:   UTF-8: `config NUL text`, or `refused NUL stage NUL admin NUL user`, with stage `options` or `template`
"""

from __future__ import annotations

import struct

JOB = struct.Struct("!Q")
ENDED = struct.Struct("!Qi?")
OUT_OF_MEMORY = 3
"""Exit code of a child that reached its limit of memory."""

PARALLEL = 4
"""Requests handled at a time."""
WALL = 10.0
"""Seconds that a child has for its request."""
CPU = 5
"""Seconds of processor time that a child has."""
MEMORY = 512 * 2**20
"""Bytes of address space that a child has."""
MAX_CONFIG = 2**20
"""Characters of a rendered configuration."""
MAX_REASON = 2000
"""Characters of a text of a refusal."""
