"""search

Revision: 0004
Follows: 0003

Written by hand, and only for PostgreSQL. A search for a part of a name reads every row (half a second of 500,000 audit
entries on a busy machine), unless the parts of three letters are in an index. SQLite has no such index outside of its
full text tables; there a search reads all.

The extension is part of PostgreSQL, and the owner of a database may install it. Where somebody else owns it and did
not, everything works without these indexes, as slowly as without them.
Source: https://www.postgresql.org/docs/15/pgtrgm.html.
"""

from __future__ import annotations

import logging
from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES: Final = {
    # As the conditions are written: controller.core.paging.contains, core.accounts.queries, core.audit.selection.
    "tg_accounts_name": "accounts USING gin (name gin_trgm_ops)",
    "tg_accounts_note": "accounts USING gin (note gin_trgm_ops)",
    "tg_account_labels_key": "account_labels USING gin (key gin_trgm_ops)",
    "tg_account_labels_value": "account_labels USING gin (value gin_trgm_ops)",
    "tg_audit_entries_text": "audit_entries USING gin"
    " ((target_name || E'\\n' || action || E'\\n' || actor_name) gin_trgm_ops)",
    "tg_clients_name": "clients USING gin (name gin_trgm_ops)",
    "tg_clients_email": "clients USING gin (email gin_trgm_ops)",
    "tg_domains_name": "domains USING gin (name gin_trgm_ops)",
    "tg_sites_domain": "sites USING gin (domain gin_trgm_ops)",
    "tg_ssh_keys_name": "ssh_keys USING gin (name gin_trgm_ops)",
    "tg_ssh_keys_fingerprint": "ssh_keys USING gin (fingerprint gin_trgm_ops)",
    "tg_users_username": "users USING gin (username gin_trgm_ops)",
}
_MAY_INSTALL: Final = """
    SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm')
        OR (EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm')
            AND has_database_privilege(current_database(), 'CREATE'))
"""


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    if not connection.scalar(sa.text(_MAY_INSTALL)):
        logging.getLogger(__name__).warning("pg_trgm cannot be installed in this database: searches will be slow")
        return
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    for name, definition in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {definition}")


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
    op.execute("DROP EXTENSION IF EXISTS pg_trgm")
