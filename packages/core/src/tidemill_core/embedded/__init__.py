"""Servers for a laptop without Docker: started when first needed, shared by processes, stopped by the last one."""
