"""The hub's database, by statements of SQLAlchemy Core.

`tables`   all tables; a time is in seconds since the epoch
`store`    reads on a few threads, writes in group commits on a thread of their own
`advisory_lock`   what several hubs on one PostgreSQL hold, alone or together
`migration`, `migrations/`   from the tables of any earlier version to those of this one
"""
