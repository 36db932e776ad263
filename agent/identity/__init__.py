"""Who an agent is: the hub's authority, certificates, enrolment, and the TLS between a site and its hub."""
