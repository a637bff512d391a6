"""Numbers about the controller itself, and later the samples of the nodes.

Invariant: labels come from small fixed sets (route templates, states), never from input. Not here: HTTP access to them
(controller.api).
"""
