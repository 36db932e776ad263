"""The estate of the demo, as it is written to disk for the agent; `$erp_url` becomes the address of the ERP."""
