"""One per fleet: tenants, desired state, the job engine, and the gateway that the agents connect to.

Layers, each importing only those below it: bootstrap, api, modules, core, fleet, jobs, metrics, db; `shared` below all.
Invariant: whatever changes a row goes through `controller.core.operations` with a scoped context.
"""
