"""The first tables that have a version, and the way to them from the file of release 0.2, which had none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_START = (
    "user_endpoint",
    "commanded_at",
    "commands",
    "first_heartbeat_at",
    "first_result_at",
    "ended_at",
    "error",
)


def upgrade() -> None:
    """Makes all tables, or what release 0.2 did not have in its own."""
    if sa.inspect(op.get_bind()).has_table("task"):
        _from_0_2()
    else:
        _make()


def _from_0_2() -> None:
    op.add_column("endpoint", sa.Column("registered_at", sa.Double, nullable=False, server_default="0"))
    op.rename_table("start", "start_of_0_2")
    op.drop_index("start_by_user_endpoint")
    _make_start()
    columns = ", ".join(_START)
    op.execute(f"INSERT INTO start(id, {columns}) SELECT rowid, {columns} FROM start_of_0_2")  # noqa: S608 - constants
    op.drop_table("start_of_0_2")
    # By a condition in the words of our queries: otherwise SQLite does not see that it fits them.
    op.drop_index("task_unforwarded")
    _index_unforwarded()


def _make() -> None:
    op.create_table(
        "token",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("resource_server", sa.Text, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "password",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("used", sa.Boolean, nullable=False, server_default=sa.false()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "function",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_table(
        "endpoint",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("multi_user", sa.Boolean, nullable=False),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("registered_at", sa.Double, nullable=False, server_default="0"),
        sa.Column("locked_until", sa.Double, nullable=False, server_default="0"),
        sa.Column("heartbeat_at", sa.Double),
        sa.Column("heartbeat_period", sa.Double),
        sa.Column("report", sa.Text),
    )
    op.create_table(
        "user_endpoint",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("manager", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("user_opts", sa.Text, nullable=False),
        sa.Column("user_runtime", sa.Text, nullable=False),
        sa.Column("commanded_at", sa.Double, nullable=False, server_default="0"),
        sa.Column("heartbeat_at", sa.Double),
        sa.Column("heartbeat_period", sa.Double),
        sa.Column("report", sa.Text),
    )
    op.create_index("user_endpoint_by_manager", "user_endpoint", ["manager"])
    op.create_index("user_endpoint_by_identity", "user_endpoint", ["identity"])
    _make_start()
    op.create_table(
        "task_group",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("has_queue", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "task",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_endpoint", sa.Text, nullable=False),
        sa.Column("task_group", sa.Text, nullable=False),
        sa.Column("function", sa.Text, nullable=False),
        sa.Column("submitted_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("result", sa.LargeBinary),
        sa.Column("forwarded", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index("task_by_group", "task", ["task_group"])
    op.create_index("task_by_end", "task", ["ended_at"])
    waits = sa.column("ended_at").is_(None)
    op.create_index("task_waiting", "task", ["user_endpoint"], sqlite_where=waits, postgresql_where=waits)
    _index_unforwarded()


def _make_start() -> None:
    op.create_table(
        "start",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("user_endpoint", sa.Text, nullable=False),
        sa.Column("commanded_at", sa.Double, nullable=False),
        sa.Column("commands", sa.Integer, nullable=False, server_default="1"),
        sa.Column("first_heartbeat_at", sa.Double),
        sa.Column("first_result_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("error", sa.Text),
    )
    op.create_index("start_by_user_endpoint", "start", ["user_endpoint"])


def _index_unforwarded() -> None:
    unforwarded = sa.column("ended_at").is_not(None) & ~sa.column("forwarded", sa.Boolean)
    op.create_index(
        "task_unforwarded", "task", ["ended_at", "id"], sqlite_where=unforwarded, postgresql_where=unforwarded
    )
