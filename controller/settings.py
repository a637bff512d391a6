"""What an operator can set: one TOML file, each value overridable by an environment variable `WCP360_<NAME>`."""

from __future__ import annotations

import ipaddress
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from shared.errors import InvalidInputError

DEFAULT_CONFIG_PATH: Final = Path("/etc/wcp360/controller.toml")
CONFIG_VARIABLE: Final = "WCP360_CONFIG"
ENVIRONMENT_PREFIX: Final = "WCP360_"
FILE_SUFFIX: Final = "_FILE"

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that differs between two installations of the controller."""

    data_dir: Path = Path("/var/lib/wcp360")
    """Database, keys and bundles; only the controller's user may enter it."""
    database_url: str = ""
    """sqlite+aiosqlite:///PATH or postgresql+asyncpg://...; empty: SQLite in data_dir."""
    api_host: str = "0.0.0.0"  # noqa: S104 - a controller that only its own machine can reach has no fleet
    api_port: Port = 8360
    gateway_host: str = "0.0.0.0"  # noqa: S104 - as above
    gateway_port: Port = 8443
    public_names: tuple[str, ...] = ()
    """Names and addresses that browsers and nodes use; the server certificate holds them. Empty: this host's name."""
    controller_url: str = ""
    """https://host:port that nodes enrol at; empty: the first public name and api_port."""
    gateway_url: str = ""
    """wss://host:port/agent/v1 that agents dial; empty: the first public name and gateway_port."""
    gateway_accepts_per_second: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 150.0
    """New agents' connections that a gateway lets in; a TLS handshake costs it 3 ms. The others wait their turn."""
    signer_socket: Path | None = None
    """Where `wcpd signer` listens; None: the keys are in data_dir/pki and this process signs itself."""
    signer_users: tuple[str, ...] = ()
    """Unix users that the signer answers, besides its own and root. Empty: wcp360."""
    bundle_dir: Path | None = None
    """Where agent bundles lie; None: data_dir/bundles."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    secrets_key_file: Path | None = None
    """The key that seals second factors; every API process needs the same one. None: data_dir/secrets.key, made if
    missing."""
    drift_check_seconds: Seconds = 900.0
    heartbeat_seconds: Seconds = 20.0
    dead_line_seconds: Seconds = 90.0
    """A session whose line was cut without a word is noticed within this."""
    metrics_seconds: Seconds = 30.0
    shutdown_seconds: Seconds = 30.0
    """Longest wait for open requests at SIGTERM."""
    redis_url: str = ""
    """redis://... for hints, events, rate limits and tasks; empty: none. May hold a password: `<NAME>_FILE` below."""
    redis_prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9._-]{1,40}$")] = "wcp360"
    """Keeps two controllers on one Redis or RabbitMQ apart."""
    hints: Literal["auto", "none", "postgresql", "redis"] = "auto"
    """What wakes other processes; auto: Redis if there is one, else PostgreSQL's NOTIFY, and nothing on SQLite."""
    broker: Literal["none", "redis", "rabbitmq"] = "none"
    """What carries the ids of tasks to workers; none: workers look into the database themselves."""
    broker_url: str = ""
    """amqp://... for RabbitMQ; for Redis empty means redis_url."""
    smtp_host: str = ""
    """The server that takes the controller's mails; empty: it sends none, and nobody resets a password by mail."""
    smtp_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 587
    smtp_tls: Literal["starttls", "implicit", "none"] = "starttls"
    """starttls: the server must offer it (port 587); implicit: from the first byte (port 465); none: in clear text."""
    smtp_user: str = ""
    """Whom to sign in as there; empty: nobody."""
    smtp_password_file: Path | None = None
    """Holds that user's password; only the controller's user may read it."""
    smtp_ca_file: Path | None = None
    """Authorities that may have signed the server's certificate; None: those that this machine believes."""
    mail_from: str = ""
    """The address that mails come from, for example panel@example.com."""
    notice_mails_per_hour: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    """Mails to one person in an hour; what is more comes later as one mail. Those about security are not counted."""
    notice_give_up_hours: Annotated[float, msgspec.Meta(ge=1, le=720)] = 72.0
    """A mail that no server took for so long is dead."""
    notice_keep_days: Annotated[float, msgspec.Meta(ge=1, le=3650)] = 180.0
    """Notices, and what became of their mails, are forgotten after so long."""
    webhook_allowed_networks: tuple[str, ...] = ()
    """Private networks that webhooks may reach, for example 10.1.0.0/16. Empty: the internet alone."""
    webhook_tenant_networks: tuple[str, ...] = ()
    """The same for webhooks of resellers and clients, who are not let into the other ones."""
    instance: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,40}$")] = ""
    """Tells this process from others of its role on this machine."""
    status_host: str = "127.0.0.1"
    internal_address: str = ""
    """host:port where other processes of this controller reach this one's gateway; empty: this host's name and its
    gateway's port."""
    status_port: Port = 0
    """Health and metrics of a gateway or a worker, over plain HTTP; 0: any free port, which its ready file names."""

    @property
    def effective_database_url(self) -> str:
        """The database to open."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'controller.db'}"

    @property
    def is_postgresql(self) -> bool:
        """Whether several processes may share the database."""
        return self.database_url.startswith("postgresql")

    @property
    def effective_hints(self) -> Literal["none", "postgresql", "redis"]:
        """What wakes other processes."""
        if self.hints != "auto":
            return self.hints
        if self.redis_url:
            return "redis"
        return "postgresql" if self.is_postgresql else "none"

    @property
    def effective_bundle_dir(self) -> Path:
        """Where agent bundles lie."""
        return self.bundle_dir or self.data_dir / "bundles"

    @property
    def effective_secrets_key_file(self) -> Path:
        """The key that seals second factors."""
        return self.secrets_key_file or self.data_dir / "secrets.key"

    @property
    def tls_dir(self) -> Path:
        """Key and certificate of this process's own listener; a process that has a signer keeps no other key."""
        return self.data_dir / ("pki" if self.signer_socket is None else "tls")

    @property
    def effective_public_names(self) -> tuple[str, ...]:
        """Names for the server certificate; never empty, and always with the loopback names."""
        names = self.public_names or (socket.getfqdn(),)
        return tuple(dict.fromkeys((*names, "localhost", "127.0.0.1", "::1")))

    @property
    def effective_controller_url(self) -> str:
        """What the install command and the certificate's pin refer to."""
        return self.controller_url or f"https://{_host_in_url(self.effective_public_names[0])}:{self.api_port}"

    @property
    def effective_gateway_url(self) -> str:
        """What enrolled agents dial."""
        return self.gateway_url or f"wss://{_host_in_url(self.effective_public_names[0])}:{self.gateway_port}/agent/v1"


def _host_in_url(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the file that WCP360_CONFIG names (or the default one, which may be missing), then the environment.

    Raises:
        InvalidInputError: The file cannot be read or a setting is unknown or outside its range; the message names it.
    """
    variables = os.environ if environment is None else environment
    values = read_config_file(variables.get(CONFIG_VARIABLE))
    values.update(parse_environment(variables))
    return parse_settings(values)


def read_config_file(named: str | None) -> dict[str, Any]:
    """The tables of the file as they are written; nothing when no file is named and the default one is missing.

    Raises:
        InvalidInputError: A named file is missing, unreadable or not TOML.
    """
    path = Path(named) if named else DEFAULT_CONFIG_PATH
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if named is None:
            return {}
        raise InvalidInputError(f"{path} does not exist", hint=f"{CONFIG_VARIABLE} names it.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{path} is not TOML: {error}") from error


def parse_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """Settings from variables named `WCP360_<NAME>` or `WCP360_<NAME>_FILE`; lists are separated by commas.

    Other variables with our prefix are left alone, since the product's other commands have theirs;
    `list_unknown_variables` names them for a warning.
    """
    kinds = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    found = {name: _read_variable(variables, name) for name in kinds}
    return {
        name: _parse_list(raw) if kinds[name] == tuple[str, ...] else raw
        for name, raw in found.items()
        if raw is not None
    }


def _read_variable(variables: Mapping[str, str], name: str) -> str | None:
    """The variable's value, or the content of the file that `<NAME>_FILE` names: how secrets are kept out of sight."""
    path = variables.get(_variable(name) + FILE_SUFFIX)
    if path is None:
        return variables.get(_variable(name))
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{_variable(name)}{FILE_SUFFIX}: {error}", field=name) from error


def list_unknown_variables(variables: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that set nothing here: a typing error, or meant for another command."""
    names = [_variable(name) for name in Settings.__struct_fields__]
    known = {CONFIG_VARIABLE, *names, *(name + FILE_SUFFIX for name in names)}
    return sorted(name for name in variables if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _parse_list(raw: str) -> list[str]:
    return [part.strip() for part in raw.split(",") if part.strip()]


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """Check and complete the values.

    Raises:
        InvalidInputError: A key is unknown or a value is outside its range; `field` names it.
    """
    for name in values:
        if name not in Settings.__struct_fields__:
            raise _unknown(name)
    try:
        settings = msgspec.convert(dict(values), Settings, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        field = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else None
        raise InvalidInputError(f"setting {field or '?'}: {error}", field=field) from error
    _require_url(settings.database_url, "database_url", ("sqlite+aiosqlite:", "postgresql+asyncpg:"))
    _require_url(settings.controller_url, "controller_url", ("https://",))
    _require_url(settings.gateway_url, "gateway_url", ("wss://",))
    _require_url(settings.redis_url, "redis_url", ("redis://", "rediss://", "unix://"))
    _require_url(settings.broker_url, "broker_url", ("redis://", "rediss://", "unix://", "amqp://", "amqps://"))
    _require_carriers(settings)
    _require_mail(settings)
    _require_networks(settings.webhook_allowed_networks, "webhook_allowed_networks")
    _require_networks(settings.webhook_tenant_networks, "webhook_tenant_networks")
    return settings


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value.startswith("/"):
        return Path(value)
    raise ValueError("expected an absolute path")


def _require_url(value: str, name: str, prefixes: tuple[str, ...]) -> None:
    if value and not value.startswith(prefixes):
        raise InvalidInputError(f"setting {name} must start with {' or '.join(prefixes)}", field=name)


def _require_networks(values: tuple[str, ...], name: str) -> None:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError as error:
            raise InvalidInputError(f"setting {name}: {error}", field=name) from error


def _require_mail(settings: Settings) -> None:
    if settings.smtp_host and not settings.mail_from:
        raise InvalidInputError(
            "setting mail_from: smtp_host needs the address that mails come from", field="mail_from"
        )
    if bool(settings.smtp_user) != (settings.smtp_password_file is not None):
        raise InvalidInputError("settings smtp_user and smtp_password_file go together", field="smtp_user")
    if settings.smtp_user and settings.smtp_tls == "none":
        raise InvalidInputError("setting smtp_tls: none would send the password in clear text", field="smtp_tls")


def _require_carriers(settings: Settings) -> None:
    is_postgresql = settings.database_url.startswith("postgresql")
    if settings.hints == "postgresql" and not is_postgresql:
        raise InvalidInputError("setting hints: postgresql needs a database_url of PostgreSQL", field="hints")
    if settings.hints == "redis" and not settings.redis_url:
        raise InvalidInputError("setting hints: redis needs redis_url", field="hints")
    if settings.broker == "redis" and not (settings.broker_url or settings.redis_url):
        raise InvalidInputError("setting broker: redis needs broker_url or redis_url", field="broker")
    if settings.broker == "rabbitmq" and not settings.broker_url.startswith("amqp"):
        raise InvalidInputError("setting broker: rabbitmq needs a broker_url that begins with amqp", field="broker")


def _unknown(name: str) -> InvalidInputError:
    known = ", ".join(Settings.__struct_fields__)
    return InvalidInputError(f"unknown setting {name!r}", field=name, hint=f"Known settings: {known}.")
