"""How a machine becomes a node and stays one: tokens, requests, approval, the next certificate.

A key never leaves its machine: only public halves arrive here.
"""
