"""The HTTP side of the controller: thin handlers, one error map, one edge that knows who asks.

Invariant: no rule of the product lives here; a handler turns a typed body into a use case and its answer into a view.
Not here: use cases (controller.core, controller.modules), the agents' listener (controller.fleet).
"""
