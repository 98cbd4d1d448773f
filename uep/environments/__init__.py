"""The Python of tasks: an environment for the client's Python and packages, where the endpoint's own does not suit.

`wanted`   the block `python` of the configuration, and what an environment has to hold
`pythons`  those that this host has
`making`   finds the environment in the user's own folder, or has `uv` make it there

All of it runs in the endpoint, as the user, between check-in and the first task.
"""
