"""One site: from its spec and facts to actions."""

from __future__ import annotations

from agent.contract.actions import Action, EnsureDirectory, PublishConfig, RemoveFile, RemoveTree, WriteFile
from agent.contract.compare import holds_file, missing_directories
from agent.contract.module import Plan
from agent.modules.web import layout, render
from agent.modules.web.facts import SiteFacts
from shared.errors import ModuleUnavailableError, PlanError
from shared.specs.base import Presence
from shared.specs.site import SiteSpec


def plan_site(spec: SiteSpec, presence: Presence, facts: SiteFacts) -> Plan:
    if presence is Presence.ABSENT:
        return _plan_removal(spec, facts)
    if not facts.is_module_enabled:
        raise ModuleUnavailableError(
            "the web module is not enabled on this node", hint="Enable the module web on this node."
        )
    _require_unclaimed(spec, facts)
    is_suspended = presence is Presence.DISABLED
    actions: list[Action] = [*_plan_folders(spec, facts), *_plan_logs(spec, facts)]
    config = WriteFile(
        path=layout.site_file(spec.domain),
        content=render.render_site(spec, is_suspended=is_suspended),
        reason="the account is suspended: 503" if is_suspended else f"the site {spec.domain}",
    )
    if not holds_file(facts.config, config):
        actions.append(PublishConfig(tree=layout.SITES_TREE.name, files=(config,), reason=config.reason))
    word = "suspended" if is_suspended else "served"
    return Plan(actions=tuple(actions), noop_reason="" if actions else f"{spec.domain} is {word} as wanted")


def _require_unclaimed(spec: SiteSpec, facts: SiteFacts) -> None:
    holder = render.parse_account(facts.config_text or "")
    if holder is not None and holder != spec.account:
        raise PlanError(
            f"{spec.domain} still belongs to account {holder} on this node",
            hint=f"Wait until account {holder} has given it up, then retry.",
        )


def _plan_folders(spec: SiteSpec, facts: SiteFacts) -> list[Action]:
    """The site's folders where they are missing.

    What is there already stays as it is: its mode is the tenant's own business, and a document root that a deployment
    made a link is served as far as the link leads to the tenant's own files.
    """
    actions: list[Action] = []
    for path in layout.site_folders(spec):
        fact = facts.paths[path]
        wanted = EnsureDirectory(
            path=path, owner=spec.account, group=layout.WEB_SERVER_GROUP, mode=0o750, reason="a folder of the site"
        )
        if fact is not None and fact.kind == "symlink":
            break
        if fact is not None and fact.kind != "directory":
            raise PlanError(f"{path} must be a folder; it is a {fact.kind}", hint="The tenant must move it away.")
        if fact is None or fact.owner != spec.account:
            actions.append(wanted)
    return actions


def _plan_logs(spec: SiteSpec, facts: SiteFacts) -> list[Action]:
    """The folder, and files that the account may read: made by `nginx -t` they would have the executor's umask."""
    folder = EnsureDirectory(path=layout.log_dir(spec), group=spec.account, mode=0o750, reason="the logs of its sites")
    files = (
        WriteFile(path=path, content="", group=spec.account, mode=0o640, reason="a log that the account may read")
        for path in (layout.access_log(spec), layout.error_log(spec))
        if facts.paths[path] is None
    )
    return [*missing_directories(facts.paths, (folder,)), *files]


def _plan_removal(spec: SiteSpec, facts: SiteFacts) -> Plan:
    holder = render.parse_account(facts.config_text or "")
    if holder is not None and holder != spec.account:
        return Plan(noop_reason=f"{spec.domain} belongs to account {holder} now; it is left alone")
    actions: list[Action] = []
    path = layout.site_file(spec.domain)
    if facts.config is not None and facts.is_module_enabled:
        actions.append(PublishConfig(tree=layout.SITES_TREE.name, removals=(path,), reason=f"{spec.domain} goes"))
    elif facts.config is not None:
        actions.append(RemoveFile(path=path, reason=f"{spec.domain} goes"))
    folder = facts.paths[layout.site_dir(spec)]
    has_folder = folder is not None and folder.kind == "directory"
    if has_folder and facts.is_untouched:
        actions.append(RemoveTree(path=layout.site_dir(spec), reason="its folder is empty"))
    risks = (f"The files in ~/sites/{spec.domain} stay.",) if has_folder and not facts.is_untouched else ()
    return Plan(actions=tuple(actions), noop_reason="" if actions else f"{spec.domain} is not served here", risks=risks)
