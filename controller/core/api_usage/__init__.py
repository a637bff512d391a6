"""Who asks the API how much, hour by hour: buffered in each process, added up in the database.

It counts, and keeps nothing of single requests; what somebody changed is in the audit log. Not here: limits
(controller.core.rate_limits).
"""
