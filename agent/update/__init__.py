"""The updater of a node: puts a signed release in the place of the running one, and back if it does not come up.

Invariant: whatever dies in the middle, the next start of the updater ends with one whole version running, the new one
only if it has reached the controller. It runs from `/opt/wcp360/updater`, a link of its own that follows a release once
that one is proven, so the way back is never walked by the code that failed. Not here: fetching a bundle (agent.link).
"""
