"""The unprivileged side of a node: the session with the controller, the spool of events, enrolment, metrics.

Invariant: nothing here can change the host. It carries signed envelopes to the executor untouched and brings results
back; what must not be lost is on disk before anybody is told that it arrived. Not here: verification of jobs (the
executor does that, agent/core) and anything that needs a privilege (agent/system, agent/install).
"""
