"""Logins with a browser: people, sessions, consents, refresh tokens; projects, policies; what the page lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds tables, columns and indices."""
    waits = sa.column("ended_at").is_(None)
    op.create_table(
        "code",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("login", sa.Text, nullable=False),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("challenge", sa.Text, nullable=False),
        sa.Column("redirect_uri", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("offline", sa.Boolean, nullable=False),
        sa.Column("authenticated_at", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("used", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "consent",
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("given_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("client", "path"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "person",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("identities", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "person_name",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("function_by_owner", "function", ["owner"])
    op.create_index("person_name_by_person", "person_name", ["person"])
    op.create_table(
        "policy",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("policy_by_project", "policy", ["project"])
    op.create_table(
        "project",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("project_by_maker", "project", ["made_by"])
    op.create_table(
        "project_admin",
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("identity", "project"),
    )
    op.create_index("project_admin_by_project", "project_admin", ["project"])
    op.create_table(
        "refresh_token",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("login", sa.Text, nullable=False),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("resource_server", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("hash"),
        sqlite_with_rowid=False,
    )
    op.create_index("refresh_token_by_login", "refresh_token", ["login"])
    op.create_table(
        "session",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("authenticated_at", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("hash"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "signing_key",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("pem", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.drop_index("task_waiting", table_name="task", sqlite_where=waits, postgresql_where=waits)
    op.create_index(
        "task_waiting", "task", ["user_endpoint", "submitted_at"], sqlite_where=waits, postgresql_where=waits
    )
    op.add_column("token", sa.Column("scope", sa.Text, server_default="", nullable=False))
    op.add_column("token", sa.Column("login", sa.Text))
    op.add_column("token", sa.Column("app", sa.Text))
    op.create_index("token_by_login", "token", ["login"])
    op.add_column("user_endpoint", sa.Column("stop_asked_at", sa.Double))
    op.drop_index("task_by_group", table_name="task")
    op.create_index("task_by_group", "task", ["task_group", "submitted_at"])
    op.create_index("task_group_by_owner", "task_group", ["owner"])
