"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# Hypothesis measures how long an example takes, and a busy machine is not a mistake of ours: timings are no assertions.
settings.register_profile("wcp360", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wcp360")

# A shell starts what runs in its background deaf to Ctrl-C (POSIX, Shell Command Language 2.11), and whatever that starts
# is deaf as well, unless it has a handler of its own. Tests press Ctrl-C on the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
