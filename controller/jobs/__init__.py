"""The job engine: one table that is the truth about everything a node was asked to do, and the state machine over it.

Invariant: every arrow between two states is one conditional UPDATE (`states.transition`), so that nothing is done twice
and a crash loses nothing; hints (`JobEngine.notify`) only make it fast. Not here: keys (controller.fleet.signing),
sockets (controller.fleet.gateway), what a job means for an account (observers that bootstrap registers).
"""
