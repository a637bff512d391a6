"""One integer says what a side can do on the wire; a bump gets a dated line here."""

from typing import Final

CAPABILITY_VERSION: Final = 2
"""History:

1 (2026-11-23): first release: hello/welcome, jobs, events, heartbeats, metrics, trust bundles.
2 (2026-11-23): streams with credit, agent updates, gaps in the job numbers in hello and heartbeat;
logins of accounts (ssh_access, has_shell).
"""

OLDEST_CAPABILITY: Final = 1
"""The controller still serves agents of this version."""
