"""The manager: consumes start commands, maps identities to accounts, starts and reaps user endpoints.

Read it in the order of a request: consumer, command, mapping, account, admission, renderer, plan, pipeline,
children. ARCHITECTURE.md has the picture.
"""

__version__ = "0.2.0"
