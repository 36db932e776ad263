"""The outside world: one folder a way of reaching it. Sees `state.model` only, never a store."""
