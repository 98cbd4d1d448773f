"""Imported once by the helper process that pool workers are forked from: they start with all of this loaded."""

from uep import worker
from uep.engines import pool_worker  # noqa: F401 - what the workers run

worker.warm_up()
