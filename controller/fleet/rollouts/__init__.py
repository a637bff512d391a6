"""Changes that go over the fleet in waves and stop by themselves: new releases of the agent, settings of modules.

The plan is pure, the loop acts, and exactly one process runs it at a time.
"""
