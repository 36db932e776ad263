"""Keeps sites in step: what two agents say to each other, and what they make of it."""
