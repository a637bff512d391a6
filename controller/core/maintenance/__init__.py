"""Maintenance of the controller itself: everybody may read, nobody may change, until it ends.

Invariant: once the answer to its start was given, no change of a person commits; the check is in the change's own
transaction, so every process knows at once. What the controller does by itself goes on: agents, jobs, schedules, tasks.
Not here: maintenance of a node (controller.fleet.nodes), which holds back that node's jobs and refuses nobody.
"""
