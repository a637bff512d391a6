"""Scenarios that run inside a real node, as root, against `RealHost`; tests/e2e/test_system_host.py drives them."""
