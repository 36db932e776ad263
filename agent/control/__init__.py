"""The agent's control API: its wire types, its server and its client."""
