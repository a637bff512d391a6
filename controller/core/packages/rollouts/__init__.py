"""Edits of packages that reach their accounts in waves, and stop by themselves when they do harm.

Invariant: until its wave comes an account is pinned to the version that it had (`accounts.package_version_id`), so what
is enforced, shown and checked for it is what it was; when it comes, the account follows the newest version again. While
a rollout is open nobody else edits the package. How it goes on is decided where rollouts over nodes are decided
(controller.fleet.rollouts.plan). Not here: how an account converges.
"""
