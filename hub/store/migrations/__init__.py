"""The steps from each version of the database to the next, for alembic; `hub.store.migration` takes them at a start.

`env`        hands alembic the connection that is to be migrated
`versions/`  one file for each step, which is never changed once a release has it
"""
