"""Bytes of any length between a node and whoever asked: opened with a signed grant, sent only within credit.

The frames and the rules of credit are in shared.protocol; what a stream carries is its user's business.
"""
