"""Statements of the hot path: written with SQLAlchemy, compiled once, run on the driver itself.

SQLAlchemy's execution of a statement costs 85 to 300 microseconds whatever the statement does; SQLite answers in 3 and
PostgreSQL in 60. A job takes some thirty statements from its request to its result, so the engine's own run here. What
is written stays one definition: the same columns, types and conditions, on both databases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import BindParameter, Boolean, Dialect, Executable, String, TypeDecorator, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

SQLITE: Final = sqlite.dialect(paramstyle="qmark")
POSTGRESQL: Final = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy's

_Process = Callable[[Any], Any]


class Driver(Protocol):
    """An open write transaction on the driver's own connection."""

    dialect: Dialect

    async def fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]: ...

    async def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None: ...


def param(name: str) -> BindParameter[Any]:
    """A parameter; its type is that of the column it is compared with or put into."""
    return bindparam(name, None)  # a value, though none that counts: without one it cannot be compiled beforehand


class any_of(FunctionElement[bool]):  # noqa: N801 - reads like the SQL it stands for
    """Condition: the column is one of the values of a parameter, however many there are; the text never changes."""

    type = Boolean()
    inherit_cache = True
    _is_implicitly_boolean = True  # else SQLite gets "... IN (...) = 1", and no index

    def __init__(self, column: Any, name: str) -> None:
        super().__init__(column, bindparam(name, None, type_=_ListOfText()))


class _ListOfText(TypeDecorator[Any]):
    """A list of strings: an array for PostgreSQL, a JSON text for SQLite."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return postgresql.ARRAY(String()) if dialect.name == "postgresql" else String()

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        listed = list(value)
        return listed if dialect.name == "postgresql" else json.dumps(listed)


@compiles(any_of, "sqlite")
def _compile_sqlite(element: any_of, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 - both are SQLAlchemy's own text


@compiles(any_of, "postgresql")
def _compile_postgresql(element: any_of, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY({values})"


class _Form(NamedTuple):
    """A statement as one database takes it."""

    sql: str
    names: tuple[str, ...]
    fixed: Mapping[str, Any]
    into: Mapping[str, _Process]
    out: tuple[_Process | None, ...]

    def fix(self, values: Mapping[str, Any]) -> _Form:
        """The same with these parameters given."""
        bound = {name: self.into[name](value) if name in self.into else value for name, value in values.items()}
        return self._replace(fixed={**self.fixed, **bound})


class Prepared:
    """One statement with named parameters (`bindparam`)."""

    def __init__(
        self,
        statement: Executable,
        row: type[tuple[Any, ...]] | None = None,
        *,
        on_postgresql: Executable | None = None,
    ) -> None:
        """`row`: a NamedTuple whose fields are the columns, in order; None: plain tuples.

        `on_postgresql`: the same, where SQLAlchemy writes it in another way.
        """
        self._statements = {"sqlite": statement, "postgresql": statement if on_postgresql is None else on_postgresql}
        self._row = row
        self._forms: dict[str, _Form] = {}

    async def fetch(self, driver: Driver, **values: Any) -> list[Any]:
        """The rows of a query, or of what a change returns."""
        form = self._form(driver.dialect)
        rows = await driver.fetch(form.sql, _bind(form, values))
        make = self._row._make if self._row is not None else tuple  # type: ignore[attr-defined] # a NamedTuple has it
        if not any(form.out):
            return [make(row) for row in rows]
        out = form.out
        return [
            make(value if read is None else read(value) for read, value in zip(out, row, strict=True)) for row in rows
        ]

    async def run_many(self, driver: Driver, rows: Sequence[Mapping[str, Any]], **common: Any) -> None:
        """A change for each set of parameters; `common` is the same in all of them, and converted once."""
        if rows:
            form = self._form(driver.dialect)
            form = form.fix(common) if common else form
            await driver.run_many(form.sql, [_bind(form, row) for row in rows])

    def _form(self, dialect: Dialect) -> _Form:
        form = self._forms.get(dialect.name)
        if form is None:
            form = self._forms[dialect.name] = _compile(self._statements[dialect.name], dialect)
        return form


def _compile(statement: Any, dialect: Dialect) -> _Form:
    compiled: Any = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    names = tuple(compiled.positiontup or ())
    values = compiled.construct_params()
    into: dict[str, _Process] = {}
    fixed: dict[str, Any] = {}
    for name in names:
        # A list in the statement itself, IN ('a', 'b'), has become the parameters name_1 and name_2.
        bound = compiled.binds[name if name in compiled.binds else name.rpartition("_")[0]]
        process = bound.type.dialect_impl(dialect).bind_processor(dialect)
        if values.get(name) is not None:
            fixed[name] = values[name] if process is None else process(values[name])
        elif process is not None:
            into[name] = process
    out = tuple(
        column.type.dialect_impl(dialect).result_processor(dialect, None)
        for column in getattr(statement, "selected_columns", None) or getattr(statement, "_returning", None) or ()
    )
    return _Form(str(compiled), names, fixed, into, out)


def _bind(form: _Form, values: Mapping[str, Any]) -> tuple[Any, ...]:
    bound = []
    for name in form.names:
        if name in form.fixed:
            bound.append(form.fixed[name])
            continue
        process = form.into.get(name)
        bound.append(values[name] if process is None else process(values[name]))
    return tuple(bound)
