"""Side by side with peers on the same weights: `python -m ip2p.benchmarks`."""
