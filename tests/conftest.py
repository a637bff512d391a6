"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Hypothesis measures how long an example takes, and a busy machine is not a mistake of ours: timings are no assertions.
settings.register_profile("wcp360", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wcp360")
