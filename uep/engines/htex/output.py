"""Bounds what blocks leave: in `submit_scripts` their output, and how many of them there are; the logs of their pools.

A job's output is written by the batch system, to a file in the user's home. So it passes through a filter in the job's
own script, which keeps its beginning and its end; the end comes when the job ends. The filter needs bash and coreutils
only: it runs before `worker_init`, on whatever node that is.

Each pool has a folder for its logs, which are bounded where they are written (`uep.workers.parsl_program`).
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from parsl.providers.cluster_provider import ClusterProvider
from parsl.providers.local.local import LocalProvider

KEPT = 256 * 1024
"""Bytes of the beginning, and of the end, of a block's output, and of its error output."""
BLOCKS = 10
"""Blocks that have ended whose files stay: there is something to read when they have failed."""
TOLD = 1024
"""Bytes of the beginning, and of the end, of a file that are told."""

_BEGIN = """\
{{ uname -n >{node}; }} 2>/dev/null
(
"""
# dd writes at once what it has read, which head does not. The filter outlives a signal to all: it ends when they have.
# It has the time of a sleep to write the end; a program that the block leaves behind may hold it for ever.
_END = """
) > >({keep}) 2> >(exec >&2; {keep})
ended=$?
sleep 1
exit $ended
"""
_KEEP = (
    f"trap '' TERM INT; dd bs=1 count={KEPT} 2>/dev/null; next=$(head -c 1 | wc -c); "
    f'if [ "$next" -ne 0 ]; then echo; echo "[... left out ...]"; tail -c {KEPT}; fi'
)
_DIRECTIVES = re.compile(r"(?:[ \t]*(?:#.*)?\n)*")
"""Comments that worker_init begins with: a batch system reads options in them, down to the first command."""
_SCRIPT = re.compile(r"\.block-(\d+)\.(\d+\.\d+)")
"""What Parsl calls the files of a block: its number, and the time of its submission."""


class BlockOutput:
    """The files of `provider`'s blocks, in its `script_dir`. logs: where its pools log, if that is ours."""

    def __init__(self, provider: Any, logs: Path | None = None) -> None:
        self._provider = provider
        self._logs = logs
        self._folder = Path(provider.script_dir)
        self._first = max((time for _, time, _ in self._files()), default=0.0)
        self._worker_init = ""
        self._is_bounded = isinstance(provider, (ClusterProvider, LocalProvider))
        if self._is_bounded:
            self._worker_init = provider.worker_init
            provider.launcher = _bounded(provider.launcher)

    def expect(self, block: str) -> None:
        """Has the provider's next script be that of `block`."""
        if self._is_bounded:
            begin = _BEGIN.format(node=shlex.quote(str(self._node(block))))
            match = _DIRECTIVES.match(self._worker_init)
            directives = match[0] if match else ""
            self._provider.worker_init = directives + begin + self._worker_init.removeprefix(directives)

    def node(self, block: str) -> str:
        """Returns the name of the node that the block's script was started on; empty when that is not known."""
        with contextlib.suppress(OSError):
            return self._node(block).read_text(errors="replace").strip()
        return ""

    def files(self, block: str) -> tuple[str | None, str | None]:
        """Returns the paths of the block's output and error output, as far as there are any."""
        ours = [(time, path) for number, time, path in self._files() if number == block and time > self._first]
        paths = [str(path) for time, path in ours if time == max(time for time, _ in ours)]
        found = [[path for path in paths if path.endswith(ends)] for ends in ((".stdout", ".out"), (".stderr", ".err"))]
        return (found[0][0] if found[0] else None), (found[1][0] if found[1] else None)

    def script(self, block: str) -> Path | None:
        """Returns the path of the block's script; None when there is none."""
        ours = [(time, path) for number, time, path in self._files() if number == block and time > self._first]
        return min((path for _, path in ours), key=lambda path: len(path.name), default=None)

    def end_of_errors(self, block: str) -> str:
        """Returns the end of the block's error output, else of its output; empty when there is none."""
        for path in reversed(self.files(block)):
            if path and (text := summary(path)):
                return text
        return ""

    def sweep(self, living: Collection[str]) -> None:
        """Removes the files of all blocks but the last ones and the `living`."""
        files = list(self._files())
        times = sorted({time for number, time, _ in files if time <= self._first or number not in living})
        old = set(times[:-BLOCKS])
        for number, time, path in files:
            if time in old and (time <= self._first or number not in living):
                path.unlink(missing_ok=True)
        for path in self._folder.glob("block-*.node"):
            if path.stem.removeprefix("block-") not in living:
                path.unlink(missing_ok=True)
        self._sweep_logs(living)

    def _sweep_logs(self, living: Collection[str]) -> None:
        """Removes the logs of all pools but the last ones, and those of living blocks. A pool is a node of a block."""
        if self._logs is None:
            return
        ended = [pool for pool in self._logs.glob("block-*/*") if pool.parent.name.removeprefix("block-") not in living]
        ended.sort(key=_changed)
        for pool in ended[: -BLOCKS * self._provider.nodes_per_block]:
            shutil.rmtree(pool, ignore_errors=True)
            with contextlib.suppress(OSError):  # others are there
                pool.parent.rmdir()

    def _node(self, block: str) -> Path:
        return self._folder / f"block-{block}.node"

    def _files(self) -> list[tuple[str, float, Path]]:
        """Lists the files of blocks: number, time, path."""
        found = [(_SCRIPT.search(path.name), path) for path in self._folder.iterdir()]
        return [(match[1], float(match[2]), path) for match, path in found if match]


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):  # somebody has removed it
        return path.stat().st_mtime
    return 0.0


def _bounded(launcher: Callable[..., str]) -> Callable[..., str]:
    """Makes a launcher that ends the script as `_BEGIN` begins it."""
    return lambda *args, **kwargs: launcher(*args, **kwargs) + _END.format(keep=_KEEP)


def summary(path: str) -> str:
    """Returns a file's text, or its beginning and its end; empty when there is no file."""
    try:
        with Path(path).open("rb") as file:
            begin, size = file.read(TOLD), Path(path).stat().st_size
            file.seek(max(len(begin), size - TOLD))
            end = file.read(TOLD)
    except OSError:
        return ""
    cut = b"\n...\n" if size > 2 * TOLD else b""
    return (begin + cut + end).decode(errors="replace").strip()
