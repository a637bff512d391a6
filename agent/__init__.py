"""One per hosting node: an unprivileged link to the controller and a root-side executor without a network.

Invariant: only `agent.system` changes the host, only signed manifests say how, and `agent.core` imports no module.
"""
