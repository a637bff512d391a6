"""What every command of one call shares: the client, the document, and how to show an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click

from cli.client import ApiClient
from cli.document import Document, Operation
from cli.names import Labels
from cli.profile import Profile, load_profiles
from cli.render import open_console, print_answer, print_json

SESSION_KEY = "wcp360.session"
"""Where click's context keeps the Session."""


@dataclass(slots=True)
class Session:
    """Made on first use, once for each call."""

    client: ApiClient
    document: Document
    is_json: bool
    labels: Labels = field(init=False)

    def __post_init__(self) -> None:
        self.labels = Labels(self.client, self.document)

    def find_operations(self, group: str) -> list[Operation]:
        """The operations of a noun; one that is not known is asked for again, as the controller may be newer."""
        operations = self.document.groups().get(group)
        if operations is None and not self.client.is_hurried:
            self.document = self.client.reload_document()
            self.labels = Labels(self.client, self.document)
            operations = self.document.groups().get(group)
        return operations or []

    def show(self, answer: Any, command: str = "") -> None:
        """As JSON for programs, else for people."""
        if self.is_json:
            print_json(answer)
        else:
            print_answer(open_console(), answer, command=command, label=self.labels.label)


def session_of(ctx: click.Context) -> Session:
    """The one of this call.

    Raises:
        CommandFailedError: No controller is named, or it does not answer.
    """
    session: Session | None = ctx.meta.get(SESSION_KEY)
    if session is None:
        client = open_client(ctx)
        session = Session(client=client, document=client.load_document(), is_json=is_json(ctx))
        ctx.meta[SESSION_KEY] = session
    return session


def is_json(ctx: click.Context) -> bool:
    """Whether a program reads the answer."""
    return bool(ctx.find_root().params.get("json"))


def chosen_profile(ctx: click.Context) -> Profile:
    """The profile that the options, the environment and the file name together.

    Raises:
        CommandFailedError: `--profile` names none.
    """
    options = ctx.find_root().params
    store = load_profiles()
    if not options.get("controller"):
        store.require_known(options.get("profile"))
    return store.get(options.get("profile"), controller=options.get("controller"), ca_file=options.get("ca_file"))


def open_client(ctx: click.Context, profile: Profile | None = None) -> ApiClient:
    """A client with the program's options."""
    root = ctx.find_root()
    client = ApiClient(
        profile or chosen_profile(ctx),
        is_verbose=bool(root.params.get("verbose")) and not ctx.resilient_parsing,
        is_hurried=ctx.resilient_parsing,  # click's word for "somebody pressed tab"
        transport=root.obj,
    )
    if not ctx.resilient_parsing:  # completion asks for names after click has closed the context
        root.call_on_close(client.close)
    return client
