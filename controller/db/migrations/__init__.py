"""How the database came to have its tables: alembic revisions that run unchanged on SQLite and PostgreSQL.

Invariant: expand, backfill in a job, contract; each revision works with the release before it. Not here: the models.
"""
