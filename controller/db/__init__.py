"""The database: engine, base of all models, migrations. The same statements run on SQLite and PostgreSQL.

Not here: models and queries of a noun; they live with the noun (`models.py`, `store.py`).
"""
