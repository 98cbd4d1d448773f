"""All tables. Times are in seconds since the epoch; `record`, `report`, `user_opts`, `user_runtime` and
`allowed_functions` are JSON."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text, false

metadata = MetaData()

_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""Of rows that are numbered as they come; SQLite does that for its own INTEGER only."""

token = Table(
    "token",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("client", Text, nullable=False),
    Column("resource_server", Text, nullable=False),
    Column("scope", Text, nullable=False, server_default=""),
    Column("expires", Double, nullable=False),
    Column("login", Text),
    Column("app", Text),
    Index("token_by_login", "login"),
    sqlite_with_rowid=False,
)
"""`login` and `app`: of which login with a browser it is, and of which program."""

refresh_token = Table(
    "refresh_token",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("login", Text, nullable=False),
    Column("app", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("resource_server", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("expires", Double, nullable=False),
    Index("refresh_token_by_login", "login"),
    sqlite_with_rowid=False,
)

code = Table(
    "code",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("login", Text, nullable=False),
    Column("app", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("challenge", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("offline", Boolean, nullable=False),
    Column("authenticated_at", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("used", Boolean, nullable=False, server_default=false()),
    sqlite_with_rowid=False,
)
"""Of consents. A used one stays until it would have expired, to be known when it comes again."""

session = Table(
    "session",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("client", Text, nullable=False),
    Column("authenticated_at", Double, nullable=False),
    Column("expires", Double, nullable=False),
    sqlite_with_rowid=False,
)

credential = Table(
    "credential",
    metadata,
    Column("client", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)
"""The secret that a client of hub.yaml had when a hub began the last time: the hash of its hash."""

person = Table(
    "person",
    metadata,
    Column("id", Text, primary_key=True),
    Column("identities", Text, nullable=False),
    Column("seen_at", Double, nullable=False),
)

person_name = Table(
    "person_name",
    metadata,
    Column("name", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Index("person_name_by_person", "person"),
)
"""A username is one person's."""

signing_key = Table(
    "signing_key",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pem", Text, nullable=False),
)

password = Table(
    "password",
    metadata,
    Column("account", Text, primary_key=True),
    Column("hash", LargeBinary, primary_key=True),
    Column("expires", Double, nullable=False),
    Column("used", Boolean, nullable=False, server_default=false()),
    sqlite_with_rowid=False,
)

function = Table(
    "function",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("public", Boolean, nullable=False),
    Column("code", Text, nullable=False),
    Column("record", Text, nullable=False),
    Index("function_by_owner", "owner"),
)

endpoint = Table(
    "endpoint",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("multi_user", Boolean, nullable=False),
    Column("public", Boolean, nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("display_name", Text),
    Column("authentication_policy", Text),
    Column("registered_at", Double, nullable=False, server_default="0"),
    Column("locked_until", Double, nullable=False, server_default="0"),
    Column("heartbeat_at", Double),
    Column("heartbeat_period", Double),
    Column("allowed_functions", Text),
    Column("report", Text),
    Index("endpoint_by_owner", "owner"),
    Index("endpoint_by_registration", "registered_at", "id"),
)
"""What is long comes last: SQLite reads all that is before a column."""

endpoint_record = Table(
    "endpoint_record",
    metadata,
    Column("id", Text, primary_key=True),
    Column("record", Text, nullable=False),
)
"""What an endpoint has registered with, up to a mebibyte: apart from what is read of many, and at each submission."""

endpoint_admin = Table(
    "endpoint_admin",
    metadata,
    Column("identity", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Index("endpoint_admin_by_endpoint", "endpoint"),
)
"""Who runs an endpoint besides its owner."""

user_endpoint = Table(
    "user_endpoint",
    metadata,
    Column("id", Text, primary_key=True),
    Column("manager", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("user_opts", Text, nullable=False),
    Column("user_runtime", Text, nullable=False),
    Column("commanded_at", Double, nullable=False, server_default="0"),
    Column("stop_asked_at", Double),
    Column("heartbeat_at", Double),
    Column("heartbeat_period", Double),
    Column("report", Text),
    Index("user_endpoint_by_manager", "manager"),
    Index("user_endpoint_by_identity", "identity"),
)

start = Table(
    "start",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("user_endpoint", Text, nullable=False),
    Column("commanded_at", Double, nullable=False),
    Column("commands", Integer, nullable=False, server_default="1"),
    Column("first_heartbeat_at", Double),
    Column("first_result_at", Double),
    Column("ended_at", Double),
    Column("error", Text),
    Index("start_by_user_endpoint", "user_endpoint"),
)

task_group = Table(
    "task_group",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("has_queue", Boolean, nullable=False, server_default=false()),
    Index("task_group_by_owner", "owner"),
)

task = Table(
    "task",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_endpoint", Text, nullable=False),
    Column("task_group", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("result", LargeBinary),
    Column("forwarded", Boolean, nullable=False, server_default=false()),
    Index("task_by_group", "task_group", "submitted_at"),
    Index("task_by_end", "ended_at"),
)

consent = Table(
    "consent",
    metadata,
    Column("client", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("given_at", Double, nullable=False),
    sqlite_with_rowid=False,
)

project = Table(
    "project",
    metadata,
    Column("id", Text, primary_key=True),
    Column("made_by", Text, nullable=False),
    Column("record", Text, nullable=False),
    Index("project_by_maker", "made_by"),
)

project_admin = Table(
    "project_admin",
    metadata,
    Column("identity", Text, primary_key=True),
    Column("project", Text, primary_key=True),
    Index("project_admin_by_project", "project"),
)

policy = Table(
    "policy",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("record", Text, nullable=False),
    Index("policy_by_project", "project"),
)

HAS_ENDED = task.c.ended_at.is_not(None)
WAITS = task.c.ended_at.is_(None)
Index("task_waiting", task.c.user_endpoint, task.c.submitted_at, sqlite_where=WAITS, postgresql_where=WAITS)
UNFORWARDED = HAS_ENDED & ~task.c.forwarded
Index("task_unforwarded", task.c.ended_at, task.c.id, sqlite_where=UNFORWARDED, postgresql_where=UNFORWARDED)
