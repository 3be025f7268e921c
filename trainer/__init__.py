"""The headless program: `ip2p ...`, or `python -m ip2p.trainer ...`."""
