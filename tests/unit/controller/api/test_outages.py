"""Which errors of a database mean that it is away, and which that we asked for nonsense."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from controller.api.errors import is_database_outage, problem_of


class DriverError(Exception):
    """What a driver raises: words, and a state if it had an answer."""

    def __init__(self, words: str, sqlstate: str | None = None) -> None:
        super().__init__(words)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    "error",
    [
        DBAPIError("connect", None, DriverError("connection was closed in the middle of operation")),
        DBAPIError("select", None, DriverError("the connection does not exist", "08003")),
        DBAPIError("select", None, DriverError("terminating connection", "57P01")),
        DBAPIError("select", None, OSError("reset by peer")),
        OperationalError("insert", None, DriverError("database is locked")),
        InterfaceError("select", None, DriverError("no connection")),
    ],
    ids=lambda error: str(error.orig)[:30],
)
def test_error_when_the_database_is_away_is_an_outage(error: Exception) -> None:
    assert is_database_outage(error)
    assert problem_of(error, "r")[0].status == 503


@pytest.mark.parametrize(
    "error",
    [
        DBAPIError("selekt", None, DriverError("syntax error", "42601")),
        IntegrityError("insert", None, DriverError("duplicate key", "23505")),
        OperationalError("select", None, DriverError("no such table: accounts")),
        ValueError("no database at all"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_error_when_we_asked_for_nonsense_is_none(error: Exception) -> None:
    assert not is_database_outage(error)
    assert problem_of(error, "r")[0].status == 500
