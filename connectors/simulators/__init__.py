"""Counterparts with records of their own, for the demo and the tests."""
