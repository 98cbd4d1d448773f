"""What is listed of endpoints, and who runs them, in columns; what they registered with in a table of its own."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_RECORD = sa.table("endpoint_record", sa.column("id"), sa.column("record"))
_ADMIN = sa.table("endpoint_admin", sa.column("identity"), sa.column("endpoint"))
_ENDPOINT = sa.table(
    "endpoint",
    *map(sa.column, ("id", "name", "display_name", "authentication_policy", "allowed_functions")),
)
_ORDER = (
    "id",
    "owner",
    "multi_user",
    "public",
    "name",
    "display_name",
    "authentication_policy",
    "registered_at",
    "locked_until",
    "heartbeat_at",
    "heartbeat_period",
    "allowed_functions",
    "report",
)


def upgrade() -> None:
    """Moves the records, and fills the columns from them, one at a time: each may have a mebibyte."""
    op.create_table(
        "endpoint_record",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "endpoint_admin",
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("identity", "endpoint"),
    )
    op.create_index("endpoint_admin_by_endpoint", "endpoint_admin", ["endpoint"])
    op.execute("INSERT INTO endpoint_record (id, record) SELECT id, record FROM endpoint")
    # SQLite makes the table anew, with the short columns before the long ones.
    with op.batch_alter_table("endpoint", partial_reordering=[_ORDER]) as batch:
        batch.add_column(sa.Column("name", sa.Text, server_default="", nullable=False))
        batch.add_column(sa.Column("display_name", sa.Text))
        batch.add_column(sa.Column("authentication_policy", sa.Text))
        batch.add_column(sa.Column("allowed_functions", sa.Text))
        batch.drop_column("record")
    op.create_index("endpoint_by_owner", "endpoint", ["owner"])
    op.create_index("endpoint_by_registration", "endpoint", ["registered_at", "id"])
    db = op.get_bind()
    for (which,) in db.execute(sa.select(_RECORD.c.id)).all():
        text = db.execute(sa.select(_RECORD.c.record).where(_RECORD.c.id == which)).scalar_one()
        _fill(db, which, json.loads(text))


def _fill(db: sa.Connection, endpoint: str, record: dict[str, object]) -> None:
    functions = record.get("allowed_functions")
    values = {
        "name": _storable(record.get("endpoint_name")) or "",
        "display_name": _storable(record.get("display_name")),
        "authentication_policy": record.get("authentication_policy"),
        "allowed_functions": None if functions is None else json.dumps(functions),
    }
    db.execute(sa.update(_ENDPOINT).where(_ENDPOINT.c.id == endpoint).values(values))
    admins = record.get("admins")
    if isinstance(admins, list) and admins:
        db.execute(sa.insert(_ADMIN), [{"identity": each, "endpoint": endpoint} for each in dict.fromkeys(admins)])


def _storable(text: object) -> str | None:
    return text.encode("utf-8", "replace").decode().replace("\0", "?") if isinstance(text, str) else None
