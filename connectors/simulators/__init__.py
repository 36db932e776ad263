"""Counterparts that run as processes of their own and keep records of their own, for the demo and the tests.

`planning`, `erp` and `wms` are the systems; each misbehaves on purpose and writes what really happened to its own ledger.
`judge` compares those ledgers and nothing else: what our tables say is never evidence.
"""
