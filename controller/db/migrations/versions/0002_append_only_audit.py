"""append only audit

Revision: 0002
Follows: 0001

Entries can be removed once a row of `audit_archives` names them (controller.core.audit.archives), and in no other way:
that row cannot be changed or removed, continues the row before it, and ends at an entry that has a signed checkpoint.
The parts of its file (`audit_archive_parts`) stay as they are from the moment on in which a row names their hash.

A certificate of deletion is written once; one change of it is let through, once: the place that it has in the audit log.

Written by hand. The database itself refuses to change, remove or insert entries of the audit log and its signed
checkpoints and certificates of deletion, whoever asks: an administrator of the controller, the controller after a mistake, a person with `sqlite3` or `psql`. Whoever may change
the schema can take the triggers away first; that is what the hash chain is for.

A later revision that rebuilds `audit_entries` (SQLite, when a column is changed or dropped) loses the triggers and has to
create them again. A trigger of another table that names `audit_entries` would make such a rebuild fail, so none does.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

from controller.db.base import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# REPLACE removes a row without asking a trigger for DELETE, so a number that was written is refused before that.
# Source: https://www.sqlite.org/lang_conflict.html ("REPLACE"), https://www.sqlite.org/lang_createtrigger.html (RAISE).
_SQLITE: Final = (
    """CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
         WHEN OLD.number > (SELECT coalesce(max(last), 0) FROM audit_archives) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_entries_no_insert BEFORE INSERT ON audit_entries
         WHEN NEW.number <= (SELECT coalesce(max(number), 0) FROM audit_entries)
           OR NEW.number <= (SELECT coalesce(max(last), 0) FROM audit_archives)
           OR EXISTS (SELECT 1 FROM audit_entries WHERE id = NEW.id) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: an entry goes to its end'); END""",
    """CREATE TRIGGER audit_head_no_return BEFORE UPDATE ON audit_head
         WHEN NEW.id <> OLD.id OR NEW.number <= OLD.number BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: its end moves forward only'); END""",
    """CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_head_no_insert BEFORE INSERT ON audit_head
         WHEN NEW.number <> 0 OR EXISTS (SELECT 1 FROM audit_head WHERE id <> NEW.id OR number > 0) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: it has one end'); END""",
    """CREATE TRIGGER audit_checkpoints_no_update BEFORE UPDATE ON audit_checkpoints BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER audit_checkpoints_no_delete BEFORE DELETE ON audit_checkpoints BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_checkpoints_no_insert BEFORE INSERT ON audit_checkpoints
         WHEN NEW.number <= (SELECT coalesce(max(number), 0) FROM audit_checkpoints)
           OR EXISTS (SELECT 1 FROM audit_checkpoints WHERE id = NEW.id) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: checkpoints move forward only'); END""",
    """CREATE TRIGGER audit_archives_no_update BEFORE UPDATE ON audit_archives BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER audit_archives_no_delete BEFORE DELETE ON audit_archives BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_archives_no_insert BEFORE INSERT ON audit_archives
         WHEN NEW.first <> (SELECT coalesce(max(last), 0) + 1 FROM audit_archives) OR NEW.last < NEW.first
           OR NOT EXISTS (SELECT 1 FROM audit_checkpoints WHERE number = NEW.last AND hash = NEW.hash)
           OR EXISTS (SELECT 1 FROM audit_archives WHERE id = NEW.id) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: an archive continues the last one to a checkpoint'); END""",
    """CREATE TRIGGER audit_witnesses_no_update BEFORE UPDATE ON audit_witnesses BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER audit_witnesses_no_delete BEFORE DELETE ON audit_witnesses BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_witnesses_no_insert BEFORE INSERT ON audit_witnesses
         WHEN EXISTS (SELECT 1 FROM audit_witnesses WHERE id = NEW.id OR (node_id = NEW.node_id AND number = NEW.number)) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: it is there already'); END""",
    """CREATE TRIGGER audit_witness_certificates_no_update BEFORE UPDATE ON audit_witness_certificates BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER audit_witness_certificates_no_delete BEFORE DELETE ON audit_witness_certificates BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_witness_certificates_no_insert BEFORE INSERT ON audit_witness_certificates
         WHEN EXISTS (SELECT 1 FROM audit_witness_certificates WHERE id = NEW.id OR fingerprint = NEW.fingerprint) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: it is there already'); END""",
    """CREATE TRIGGER audit_contradictions_no_update BEFORE UPDATE ON audit_contradictions BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER audit_contradictions_no_delete BEFORE DELETE ON audit_contradictions BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_contradictions_no_insert BEFORE INSERT ON audit_contradictions
         WHEN EXISTS (SELECT 1 FROM audit_contradictions WHERE id = NEW.id OR (node_id = NEW.node_id AND known_number = NEW.known_number)) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: it is there already'); END""",
    """CREATE TRIGGER audit_archive_parts_no_update BEFORE UPDATE ON audit_archive_parts BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER audit_archive_parts_no_delete BEFORE DELETE ON audit_archive_parts
         WHEN EXISTS (SELECT 1 FROM audit_archives WHERE sha256 = OLD.sha256) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused'); END""",
    """CREATE TRIGGER audit_archive_parts_no_insert BEFORE INSERT ON audit_archive_parts
         WHEN EXISTS (SELECT 1 FROM audit_archives WHERE sha256 = NEW.sha256)
           OR EXISTS (SELECT 1 FROM audit_archive_parts
                      WHERE id = NEW.id OR (sha256 = NEW.sha256 AND number = NEW.number)) BEGIN
         SELECT RAISE(ABORT, 'the audit log is append-only: it is there already'); END""",
    """CREATE TRIGGER deletion_certificates_no_update BEFORE UPDATE ON deletion_certificates
         WHEN OLD.audit_number IS NOT NULL OR OLD.audit_hash IS NOT NULL
           OR NEW.id <> OLD.id OR NEW.account_id <> OLD.account_id OR NEW.created_at <> OLD.created_at
           OR NEW.content <> OLD.content OR NEW.content_hash <> OLD.content_hash
           OR NEW.audit_number IS NULL OR NEW.audit_hash IS NULL BEGIN
         SELECT RAISE(ABORT, 'certificates of deletion are append-only: UPDATE is refused'); END""",
    """CREATE TRIGGER deletion_certificates_no_delete BEFORE DELETE ON deletion_certificates BEGIN
         SELECT RAISE(ABORT, 'certificates of deletion are append-only: DELETE is refused'); END""",
    """CREATE TRIGGER deletion_certificates_no_insert BEFORE INSERT ON deletion_certificates
         WHEN NEW.audit_number IS NOT NULL OR NEW.audit_hash IS NOT NULL
           OR EXISTS (SELECT 1 FROM deletion_certificates WHERE id = NEW.id OR account_id = NEW.account_id) BEGIN
         SELECT RAISE(ABORT, 'certificates of deletion are append-only: it is there already'); END""",
)

# ENABLE ALWAYS: a superuser's `SET session_replication_role = replica` must not switch them off.
# Source: https://www.postgresql.org/docs/15/sql-altertable.html (ENABLE ALWAYS TRIGGER).
_POSTGRESQL: Final = (
    """CREATE FUNCTION wcp360_refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
       END $$""",
    """CREATE FUNCTION wcp360_check_audit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NEW.number <= (SELECT coalesce(max(number), 0) FROM audit_entries)
            OR NEW.number <= (SELECT coalesce(max(last), 0) FROM audit_archives) THEN
           RAISE EXCEPTION 'the audit log is append-only: an entry goes to its end'
             USING ERRCODE = 'restrict_violation';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE FUNCTION wcp360_check_audit_head() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NEW.id <> OLD.id OR NEW.number <= OLD.number THEN
           RAISE EXCEPTION 'the audit log is append-only: its end moves forward only'
             USING ERRCODE = 'restrict_violation';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE FUNCTION wcp360_check_audit_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NEW.number <= (SELECT coalesce(max(number), 0) FROM audit_checkpoints) THEN
           RAISE EXCEPTION 'the audit log is append-only: checkpoints move forward only'
             USING ERRCODE = 'restrict_violation';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE TRIGGER audit_checkpoints_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE TRIGGER audit_checkpoints_no_insert BEFORE INSERT ON audit_checkpoints
       FOR EACH ROW EXECUTE FUNCTION wcp360_check_audit_checkpoint()""",
    """CREATE FUNCTION wcp360_check_audit_removal() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF OLD.number > (SELECT coalesce(max(last), 0) FROM audit_archives) THEN
           RAISE EXCEPTION 'the audit log is append-only: DELETE is refused' USING ERRCODE = 'restrict_violation';
         END IF;
         RETURN OLD;
       END $$""",
    """CREATE FUNCTION wcp360_check_audit_archive() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NEW.first <> (SELECT coalesce(max(last), 0) + 1 FROM audit_archives) OR NEW.last < NEW.first
            OR NOT EXISTS (SELECT 1 FROM audit_checkpoints WHERE number = NEW.last AND hash = NEW.hash) THEN
           RAISE EXCEPTION 'the audit log is append-only: an archive continues the last one to a checkpoint'
             USING ERRCODE = 'restrict_violation';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE TRIGGER audit_archives_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_archives
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE TRIGGER audit_archives_no_insert BEFORE INSERT ON audit_archives
       FOR EACH ROW EXECUTE FUNCTION wcp360_check_audit_archive()""",
    """CREATE TRIGGER audit_entries_no_change BEFORE UPDATE OR TRUNCATE ON audit_entries
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
       FOR EACH ROW EXECUTE FUNCTION wcp360_check_audit_removal()""",
    """CREATE TRIGGER audit_entries_no_insert BEFORE INSERT ON audit_entries
       FOR EACH ROW EXECUTE FUNCTION wcp360_check_audit_entry()""",
    """CREATE TRIGGER audit_head_no_delete BEFORE DELETE OR TRUNCATE ON audit_head
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE TRIGGER audit_head_no_return BEFORE UPDATE ON audit_head
       FOR EACH ROW EXECUTE FUNCTION wcp360_check_audit_head()""",
    """CREATE TRIGGER audit_witnesses_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_witnesses
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE TRIGGER audit_witness_certificates_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_witness_certificates
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE TRIGGER audit_contradictions_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_contradictions
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE FUNCTION wcp360_check_audit_archive_part() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF EXISTS (SELECT 1 FROM audit_archives
                    WHERE sha256 = CASE WHEN TG_OP = 'DELETE' THEN OLD.sha256 ELSE NEW.sha256 END) THEN
           RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
         END IF;
         RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
       END $$""",
    """CREATE TRIGGER audit_archive_parts_no_change BEFORE UPDATE OR TRUNCATE ON audit_archive_parts
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_audit_change()""",
    """CREATE TRIGGER audit_archive_parts_no_insert BEFORE INSERT OR DELETE ON audit_archive_parts
       FOR EACH ROW EXECUTE FUNCTION wcp360_check_audit_archive_part()""",
    """CREATE FUNCTION wcp360_refuse_certificate_change() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         RAISE EXCEPTION 'certificates of deletion are append-only: % is refused', TG_OP
           USING ERRCODE = 'restrict_violation';
       END $$""",
    """CREATE FUNCTION wcp360_check_certificate() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF TG_OP = 'INSERT' THEN
           IF NEW.audit_number IS NULL AND NEW.audit_hash IS NULL THEN RETURN NEW; END IF;
         ELSIF OLD.audit_number IS NULL AND OLD.audit_hash IS NULL
            AND NEW.id = OLD.id AND NEW.account_id = OLD.account_id AND NEW.created_at = OLD.created_at
            AND NEW.content::text = OLD.content::text AND NEW.content_hash = OLD.content_hash
            AND NEW.audit_number IS NOT NULL AND NEW.audit_hash IS NOT NULL THEN
           RETURN NEW;
         END IF;
         RAISE EXCEPTION 'certificates of deletion are append-only: % is refused', TG_OP
           USING ERRCODE = 'restrict_violation';
       END $$""",
    """CREATE TRIGGER deletion_certificates_no_delete BEFORE DELETE OR TRUNCATE ON deletion_certificates
       FOR EACH STATEMENT EXECUTE FUNCTION wcp360_refuse_certificate_change()""",
    """CREATE TRIGGER deletion_certificates_no_change BEFORE INSERT OR UPDATE ON deletion_certificates
       FOR EACH ROW EXECUTE FUNCTION wcp360_check_certificate()""",
    "ALTER TABLE audit_archive_parts ENABLE ALWAYS TRIGGER audit_archive_parts_no_change",
    "ALTER TABLE audit_archive_parts ENABLE ALWAYS TRIGGER audit_archive_parts_no_insert",
    "ALTER TABLE deletion_certificates ENABLE ALWAYS TRIGGER deletion_certificates_no_delete",
    "ALTER TABLE deletion_certificates ENABLE ALWAYS TRIGGER deletion_certificates_no_change",
    "ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_no_change",
    "ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_no_delete",
    "ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_no_insert",
    "ALTER TABLE audit_archives ENABLE ALWAYS TRIGGER audit_archives_no_change",
    "ALTER TABLE audit_archives ENABLE ALWAYS TRIGGER audit_archives_no_insert",
    "ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_no_delete",
    "ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_no_return",
    "ALTER TABLE audit_checkpoints ENABLE ALWAYS TRIGGER audit_checkpoints_no_change",
    "ALTER TABLE audit_checkpoints ENABLE ALWAYS TRIGGER audit_checkpoints_no_insert",
    "ALTER TABLE audit_witnesses ENABLE ALWAYS TRIGGER audit_witnesses_no_change",
    "ALTER TABLE audit_witness_certificates ENABLE ALWAYS TRIGGER audit_witness_certificates_no_change",
    "ALTER TABLE audit_contradictions ENABLE ALWAYS TRIGGER audit_contradictions_no_change",
)

_SQLITE_DOWN: Final = (
    "DROP TRIGGER IF EXISTS audit_entries_no_update",
    "DROP TRIGGER IF EXISTS audit_entries_no_delete",
    "DROP TRIGGER IF EXISTS audit_entries_no_insert",
    "DROP TRIGGER IF EXISTS audit_head_no_return",
    "DROP TRIGGER IF EXISTS audit_head_no_delete",
    "DROP TRIGGER IF EXISTS audit_head_no_insert",
    "DROP TRIGGER IF EXISTS audit_checkpoints_no_update",
    "DROP TRIGGER IF EXISTS audit_checkpoints_no_delete",
    "DROP TRIGGER IF EXISTS audit_checkpoints_no_insert",
    "DROP TRIGGER IF EXISTS audit_archives_no_update",
    "DROP TRIGGER IF EXISTS audit_archives_no_delete",
    "DROP TRIGGER IF EXISTS audit_archives_no_insert",
    "DROP TRIGGER IF EXISTS audit_witnesses_no_update",
    "DROP TRIGGER IF EXISTS audit_witnesses_no_delete",
    "DROP TRIGGER IF EXISTS audit_witnesses_no_insert",
    "DROP TRIGGER IF EXISTS audit_witness_certificates_no_update",
    "DROP TRIGGER IF EXISTS audit_witness_certificates_no_delete",
    "DROP TRIGGER IF EXISTS audit_witness_certificates_no_insert",
    "DROP TRIGGER IF EXISTS audit_contradictions_no_update",
    "DROP TRIGGER IF EXISTS audit_contradictions_no_delete",
    "DROP TRIGGER IF EXISTS audit_contradictions_no_insert",
    "DROP TRIGGER IF EXISTS audit_archive_parts_no_update",
    "DROP TRIGGER IF EXISTS audit_archive_parts_no_delete",
    "DROP TRIGGER IF EXISTS audit_archive_parts_no_insert",
    "DROP TRIGGER IF EXISTS deletion_certificates_no_update",
    "DROP TRIGGER IF EXISTS deletion_certificates_no_delete",
    "DROP TRIGGER IF EXISTS deletion_certificates_no_insert",
)
_POSTGRESQL_DOWN: Final = (
    "DROP FUNCTION IF EXISTS wcp360_refuse_audit_change CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_check_audit_entry CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_check_audit_removal CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_check_audit_archive CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_check_audit_head CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_check_audit_checkpoint CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_check_audit_archive_part CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_refuse_certificate_change CASCADE",
    "DROP FUNCTION IF EXISTS wcp360_check_certificate CASCADE",
)


def upgrade() -> None:
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("kid", sa.String(length=100), nullable=False),
        sa.Column("signature", sa.String(length=100), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_checkpoints")),
        sa.UniqueConstraint("number", name=op.f("uq_audit_checkpoints_number")),
    )
    _create_archive_table()
    _create_witness_tables()
    _create_certificate_table()
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def _common(table: str) -> tuple[Any, ...]:
    return (
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )


def _create_archive_table() -> None:
    op.create_table(
        "audit_archives",
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        *_common("audit_archives"),
        sa.UniqueConstraint("first", name=op.f("uq_audit_archives_first")),
        sa.UniqueConstraint("last", name=op.f("uq_audit_archives_last")),
    )


    op.create_table(
        "audit_archive_parts",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        *_common("audit_archive_parts"),
        sa.UniqueConstraint("sha256", "number", name=op.f("uq_audit_archive_parts_sha256")),
    )


def _create_certificate_table() -> None:
    op.create_table(
        "deletion_certificates",
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("audit_number", sa.BigInteger(), nullable=True),
        sa.Column("audit_hash", sa.String(length=64), nullable=True),
        *_common("deletion_certificates"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_deletion_certificates_account_id_accounts"), ondelete="RESTRICT"
        ),
        sa.UniqueConstraint("account_id", name=op.f("uq_deletion_certificates_account_id")),
    )
    op.create_index("ix_deletion_certificates_audit_number", "deletion_certificates", ["audit_number"])


def _create_witness_tables() -> None:
    op.create_table(
        "audit_witnesses",
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("signature", sa.String(length=200), nullable=False),
        *_common("audit_witnesses"),
        sa.UniqueConstraint("node_id", "number", name=op.f("uq_audit_witnesses_node_id")),
    )
    op.create_table(
        "audit_witness_certificates",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("authority_pem", sa.Text(), nullable=False),
        *_common("audit_witness_certificates"),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_audit_witness_certificates_fingerprint")),
    )
    op.create_table(
        "audit_contradictions",
        sa.Column("node_id", sa.String(length=36), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("shown_number", sa.BigInteger(), nullable=False),
        sa.Column("shown_hash", sa.String(length=64), nullable=False),
        sa.Column("known_number", sa.BigInteger(), nullable=False),
        sa.Column("known_payload", sa.Text(), nullable=False),
        *_common("audit_contradictions"),
        sa.UniqueConstraint("node_id", "known_number", name=op.f("uq_audit_contradictions_node_id")),
    )


def downgrade() -> None:
    for statement in _SQLITE_DOWN if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL_DOWN:
        op.execute(statement)
    for table in (
        "deletion_certificates", "audit_contradictions", "audit_witness_certificates", "audit_witnesses",
        "audit_archive_parts", "audit_archives", "audit_checkpoints",
    ):  # fmt: skip
        op.drop_table(table)
