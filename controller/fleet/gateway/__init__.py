"""The agents' listener: who may come in, one session per node, the traffic of jobs, and who is there.

Every write carries the session's epoch, so that a gateway that was asleep changes nothing. What a job is, is in
controller.jobs.
"""
