"""A fleet of real Debian nodes on one machine, for tests and for `make run`.

A node is a booted Debian: an overlay over a cached image, run by systemd-nspawn on a bridge of its lab. The invariant:
what runs is read from the kernel (the node's cgroup, the mount table, the links), never from a file that a crash could
leave wrong; files hold only what was asked for. Standard library only. Nothing here knows WCP360 itself.
"""

from wcplab.errors import CannotBootError, LabError
from wcplab.lab import Lab
from wcplab.node import Node, NodeStatus
from wcplab.process import Completed

__all__ = ["CannotBootError", "Completed", "Lab", "LabError", "Node", "NodeStatus"]
