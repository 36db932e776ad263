"""The daemon: intake, relay, workflows, sync and the control API."""
