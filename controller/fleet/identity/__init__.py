"""Whom nodes believe: the certificate authorities and the trust bundle, and how both are replaced while all work.

Every private key is behind controller.fleet.signing; nothing here reads one. How a machine gets its first
certificate is in controller.fleet.enrolment.
"""
