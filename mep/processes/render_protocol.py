"""What the monitor and the render server say to each other, and the limits that both must know.

                                      is answered once, in any order, by
by being started  number 0            READY
to the server     RENDER   n, files   RENDERED, REFUSED or ENDED
from the server   READY    0
                  RENDERED n, file: the configuration; and, after a NUL, what its user is to know of the options
                  REFUSED  n, file: `stage NUL text for the admin NUL text for the user`, stage `options` or `template`
                  ENDED    n {code, late}: no answer, but the exit code of the child that was to give it, negative for
                           a signal, and whether it was killed for taking WALL seconds

DIALOGUE says the same; `answering` holds the server to it. Its children have no say in it: each reads the files of one
question and writes one, which the server seals and passes on unread.

Files of RENDER, each a JSON object: what is the profile's {template, templates, schema, config, words_only: whether the
client's texts must be plain words}; the options and the runtime as the client has sent them; the template variables
{mapped_identity, env} of this request.
"""

from __future__ import annotations

import enum

from mep.processes.message import START, Dialogue, Limits
from mep.request.start_endpoint import MAX_OPTIONS

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
OUT_OF_MEMORY = 3
"""Exit code of a child that reached its limit of memory."""
MOST_PROFILE = 64 * 2**20
MOST_IDENTITY = 2**21


class ToRenderer(enum.IntEnum):
    """Kinds of questions."""

    RENDER = 1


class FromRenderer(enum.IntEnum):
    """Kinds of answers."""

    READY = 101
    RENDERED = 102
    REFUSED = 103
    ENDED = 104


FILES_TO_RENDERER: Limits = {ToRenderer.RENDER: [MOST_PROFILE, MAX_OPTIONS, MAX_OPTIONS, MOST_IDENTITY]}
DIALOGUE = Dialogue(
    module="mep.renderer.server",
    answers={
        START: {FromRenderer.READY: {}},
        ToRenderer.RENDER: {
            FromRenderer.RENDERED: {},
            FromRenderer.REFUSED: {},
            FromRenderer.ENDED: {"code": int, "late": bool},
        },
    },
    files={
        FromRenderer.RENDERED: [4 * MAX_CONFIG + 1 + 4 * MAX_REASON],
        FromRenderer.REFUSED: [2 * 4 * MAX_REASON + 100],
    },
)
