"""`make demo`: the main job, end to end, with real parts. `story` is what happens, `keeper` keeps it running."""
