"""How often somebody may ask: counters in memory or in Redis, the rates, and whose counters a request counts on.

A refused request counts on none of its counters. Not here: HTTP (controller.api.rate_gate).
"""
