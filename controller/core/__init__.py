"""The rules of the product: who may do what, how much of it, and what it means for a node.

Invariant: imports no module of `controller.modules`; each noun is a package with models, store and service. Not here:
HTTP (controller.api), keys and connections (controller.fleet), delivery (controller.jobs).
"""
