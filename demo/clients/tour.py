"""Every script of this folder, one after the other in one process: python tour.py ENDPOINT_ID ['{"option": "value"}']

Prints a JSON line for each. They run just as `python SCRIPT` would run them, without six imports of the SDK.
"""

import contextlib
import io
import json
import runpy
import sys
import time
from pathlib import Path

SCRIPTS = ["sum", "registered", "program", "failing", "shell", "many"]

for script in SCRIPTS:
    begin = time.time()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        runpy.run_path(str(Path(__file__).with_name(f"{script}.py")), run_name="__main__")
    line = {"script": script, "said": said.getvalue().strip(), "seconds": time.time() - begin}
    print(json.dumps(line), flush=True)
