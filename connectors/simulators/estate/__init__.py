"""The estate of the demo, as it is written to disk for the agent; the ports in it become those of this run."""
