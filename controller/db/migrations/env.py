"""What alembic runs; connection and metadata come from runner.py: no second place has a database URL."""

from __future__ import annotations

from alembic import context

from controller.db.migrations.runner import is_compared

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    compare_type=True,
    include_object=is_compared,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
